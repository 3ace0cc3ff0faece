"""Scores by a cross-encoder: it reads query and passage together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from encoders.scoring import Pair, PairScorer, Prepared, Query


class CrossEncoderScorer(PairScorer):
    """Pairs to scores: the sigmoid of the model's one label, in 0..1."""

    engine = "cross_encoder"

    @property
    def description(self) -> str:
        """Such as "ms-marco-MiniLM-L6-v2@1a2b3c4d, openvino bf16, 2 threads, cross-encoder"."""
        return f"{super().description}, cross-encoder"

    def prepare(self, query: str, passages: Sequence[str]) -> Prepared:
        """Tokenises pairs, the model's own prefix first. Thread-safe.

        Of a pair that is too long, the longer text is cut.
        """
        prompt = self._encoder.blueprint.prompts["query"].text
        rows = self._encoder.tokenizer.encode_pairs(prompt + query, passages)
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
