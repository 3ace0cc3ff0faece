"""BM25 as sparse vectors: term weights here, inverse document frequency in the store."""

from __future__ import annotations

from typing import Final

from qdrant_edge import Bm25, Bm25Config

# Saturation of a term that a question repeats, f (k + 1) / (k + f): Okapi's k3, 7 to 8 in
# TREC-8 (Robertson and Walker 1999). It lifts hybrid retrieval on CISI, whose questions are
# paragraphs, from .404 to .433 nDCG@10, CACM from .508 to .522, and leaves the others.
QUESTION_K3: Final = 8.0

Sparse = tuple[list[int], list[float]]


class Encoder:
    """Texts to (indices, values). Both are empty when only stop words are left."""

    def __init__(self, *, k1: float, b: float, average_tokens: float, language: str) -> None:
        self._bm25 = Bm25(Bm25Config(k=k1, b=b, avg_len=average_tokens, language=language))
        self._question = Bm25(Bm25Config(k=QUESTION_K3, b=0.0, language=language))

    def passage(self, text: str) -> Sparse:
        """Saturated term frequencies, relative to the passage's length."""
        vector = self._bm25.embed_document(text)
        return vector.indices, vector.values

    def question(self, text: str) -> Sparse:
        """1 for a term that occurs once, more for what the question says again.

        `Bm25.embed_query` would give each distinct term 1, and a question of three sentences
        then weighs its subject no more than its asides.
        """
        vector = self._question.embed_document(text)
        return vector.indices, vector.values
