"""Scores by a cross-encoder: it reads query and passage together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from encoders.encoder import Encoder
from encoders.identity import ModelIdentity
from encoders.options import Precision
from encoders.scoring import Pair, Prepared, Query


class CrossEncoderScorer:
    """Pairs to scores: the sigmoid of the model's one label, in 0..1."""

    engine = "cross_encoder"

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    @property
    def identity(self) -> ModelIdentity:
        """Its dimension is 0."""
        return self._encoder.identity

    @property
    def description(self) -> str:
        """Such as "ms-marco-MiniLM-L6-v2@1a2b3c4d, openvino bf16, 2 threads"."""
        return f"{self._encoder.description}, cross-encoder"

    @property
    def precision(self) -> Precision:
        """What it computes in."""
        return self._encoder.precision

    @property
    def batch_tokens(self) -> int:
        """Padded tokens of a batch beyond which it gets no faster here."""
        return self._encoder.batch_tokens

    def padded(self, tokens: int) -> int:
        """Length of the row that a pair of so many tokens takes in a batch."""
        return self._encoder.padded(tokens)

    def prepare(self, query: str, passages: Sequence[str]) -> Prepared:
        """Tokenises pairs; of one that is too long, the longer text is cut. Thread-safe."""
        rows = self._encoder.tokenizer.encode_pairs(query, passages)
        return Prepared(
            pairs=[Pair(row, Query(row)) for row in rows],
            truncated=[index for index, row in enumerate(rows) if row.truncated],
            tokens=sum(len(row) for row in rows),
        )

    def score(self, batch: Sequence[Pair]) -> list[float]:
        """One padded batch of pairs: scores in 0..1."""
        scores = self._encoder.run([pair.tokens for pair in batch])
        if not np.isfinite(scores).all():
            raise FloatingPointError("the model gave a score that is not finite")
        return [float(score) for score in scores]

    def warm_up(self) -> None:
        """Runs every padded length once."""
        self._encoder.warm_up()

    def close(self) -> None:
        """Releases the model."""
        self._encoder.close()
