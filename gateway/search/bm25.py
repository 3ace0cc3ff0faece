"""BM25 as sparse vectors: term weights here, inverse document frequency in the store."""

from __future__ import annotations

from qdrant_edge import Bm25, Bm25Config

Sparse = tuple[list[int], list[float]]


class Encoder:
    """Texts to (indices, values). Both are empty when only stop words are left."""

    def __init__(self, *, k1: float, b: float, average_tokens: float, language: str) -> None:
        self._bm25 = Bm25(Bm25Config(k=k1, b=b, avg_len=average_tokens, language=language))

    def passage(self, text: str) -> Sparse:
        """Saturated term frequencies, relative to the passage's length."""
        vector = self._bm25.embed_document(text)
        return vector.indices, vector.values

    def question(self, text: str) -> Sparse:
        """Weight 1 for each distinct term."""
        vector = self._bm25.embed_query(text)
        return vector.indices, vector.values
