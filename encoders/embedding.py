"""Texts to vectors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from encoders.blueprint import InputType
from encoders.encoder import EncoderModel, Floats, open_encoder
from encoders.options import Runtime
from encoders.tokenizing import Tokens, short

# Padded tokens of one batch in `encode`: large enough that a batch's overhead does not
# show, small enough that it stays in the cache (32x64 was as fast as any larger).
ENCODE_BATCH_TOKENS = 2048


class EmbeddingModel(EncoderModel):
    """An embedding model that is loaded and ready. `embed` by `streams` threads at once."""

    @property
    def normalised(self) -> bool:
        """Whether vectors have length 1."""
        return self._encoder.blueprint.normalised

    def tokenize(self, texts: Sequence[str], input_type: InputType) -> list[Tokens]:
        """One `Tokens` per text, with the model's own prefix for the input type. Thread-safe."""
        prompt, tokenizer = self._encoder.blueprint.prompts[input_type], self._encoder.tokenizer
        encode = tokenizer.encode_short if short(texts) else tokenizer.encode
        return encode(texts, prompt.text, prompt.excluded_tokens)

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

        Texts longer than `identity.max_tokens` are cut. In the calling thread, so on one of the
        `streams` and a part of the machine: for checks and small programs. Workers use a
        `Batcher`, which runs all of them.
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


def load_embedding_model(name: str, runtime: Runtime | None = None) -> EmbeddingModel:
    """Loads any sentence-transformers model that begins with a transformer.

    name: a hub name or a local folder; "sentence-transformers/all-MiniLM-L6-v2"
        is found in an installed package without a hub.

    Raises ModelUnusableError, with a message for people.
    """
    return EmbeddingModel(open_encoder(name, "embedding", runtime or Runtime()))
