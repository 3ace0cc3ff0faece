"""Texts to vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Event

import numpy as np

from encoders.blueprint import InputType
from encoders.encoder import Encoder, Floats, open_encoder
from encoders.identity import ModelIdentity
from encoders.options import DEFAULT_CACHE_DIR, BackendName, Precision, PrecisionName, Runtime
from encoders.tokenizing import Tokens

# Padded tokens of one batch in `encode`: large enough that a batch's overhead does not
# show, small enough that it stays in the cache (32x64 was as fast as any larger).
ENCODE_BATCH_TOKENS = 2048


class EmbeddingModel:
    """An embedding model that is loaded and ready. `embed` and `encode` by one thread at a time."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    @property
    def identity(self) -> ModelIdentity:
        """Name, fingerprint, dimension and longest input."""
        return self._encoder.identity

    @property
    def description(self) -> str:
        """Such as "all-MiniLM-L6-v2@1a2b3c4d, openvino bf16, 2 threads"."""
        return self._encoder.description

    @property
    def precision(self) -> Precision:
        """What it computes in."""
        return self._encoder.precision

    @property
    def normalised(self) -> bool:
        """Whether vectors have length 1."""
        return self._encoder.blueprint.normalised

    @property
    def batch_tokens(self) -> int:
        """Padded tokens of a batch beyond which it gets no faster here."""
        return self._encoder.batch_tokens

    def padded(self, tokens: int) -> int:
        """Length of the row that a text of so many tokens takes in a batch."""
        return self._encoder.padded(tokens)

    def tokenize(self, texts: Sequence[str], input_type: InputType) -> list[Tokens]:
        """One `Tokens` per text, with the model's own prefix for the input type. Thread-safe."""
        prompt = self._encoder.blueprint.prompts[input_type]
        return self._encoder.tokenizer.encode(texts, prompt.text, prompt.excluded_tokens)

    def embed(self, batch: Sequence[Tokens]) -> Floats:
        """One padded batch: float32 [len(batch), dimension], as the model normalises.

        Raises FloatingPointError when the model gives anything but numbers.
        """
        vectors = self._encoder.run(batch)
        if not np.isfinite(vectors).all():
            raise FloatingPointError("the model gave a vector that is not finite")
        return vectors

    def encode(self, texts: Sequence[str], input_type: InputType = "passage") -> Floats:
        """Any number of texts, in batches by length: float32 [len(texts), dimension], in order.

        Texts longer than `identity.max_tokens` are cut.
        """
        vectors = np.empty((len(texts), self.identity.dimension), np.float32)
        tokens = self.tokenize(texts, input_type)
        order = sorted(range(len(texts)), key=lambda index: -len(tokens[index]))
        start = 0
        while start < len(order):
            rows = max(1, ENCODE_BATCH_TOKENS // self.padded(len(tokens[order[start]])))
            batch = order[start : start + rows]
            vectors[batch] = self.embed([tokens[index] for index in batch])
            start += rows
        return vectors

    def warm_up(self) -> None:
        """Runs every padded length once."""
        self._encoder.warm_up()

    def close(self) -> None:
        """Releases the model."""
        self._encoder.close()


def load_embedding_model(
    name: str,
    *,
    backend: BackendName = "auto",
    precision: PrecisionName = "auto",
    threads: int = 0,
    cache_dir: Path | None = DEFAULT_CACHE_DIR,
    stopped: Event | None = None,
) -> EmbeddingModel:
    """Loads any sentence-transformers model that begins with a transformer.

    name: a hub name or a local folder; "sentence-transformers/all-MiniLM-L6-v2"
        is found in an installed package without a hub.
    backend, precision: "auto" chooses by the machine.
    threads: 0 takes what the cgroup's quota allows.
    cache_dir: where exports are kept between starts; None keeps none.
    stopped: set by another thread, it ends a load that takes long.

    Raises ModelUnusableError, with a message for people.
    """
    runtime = Runtime(backend, precision, threads, cache_dir, stopped or Event())
    return EmbeddingModel(open_encoder(name, "embedding", runtime))
