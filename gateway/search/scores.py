"""Ranks fused, and raw scores brought to 0..1."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Final, TypeVar

# BM25 score at which a passage counts as half certain: about that of a chunk which holds
# two of the question's rarer words.
SPARSE_HALF: Final = 10.0


K = TypeVar("K", bound=Hashable)


def fuse(
    rankings: Sequence[Sequence[K]], document_of: Mapping[K, str], k: int
) -> list[tuple[K, float]]:
    """Reciprocal rank fusion of passages, the best of each document lifted to its document's score.

    A ranking gives 1 / (k + rank) to a passage by its own rank, and to a document by its rank
    among documents, each where its first passage stands (Cormack, Clarke and Büttcher 2009;
    ranks from 0, as Qdrant counts them). A document's best passage has the sum of its document,
    the others their own, which is never more. So a document that one ranking finds by its first
    passage and the other by its last is found by both, and passages of one document do not push
    each other's neighbours down.

    Best first; ties in the order in which the rankings first named them.
    """
    own: dict[K, float] = {}
    documents: dict[str, float] = {}
    for ranking in rankings:
        seen: set[str] = set()
        for rank, name in enumerate(ranking):
            own[name] = own.get(name, 0.0) + 1.0 / (k + rank)
            document = document_of[name]
            if document not in seen:
                documents[document] = documents.get(document, 0.0) + 1.0 / (k + len(seen))
                seen.add(document)
    lifted: list[tuple[K, float]] = []
    for name, score in sorted(own.items(), key=lambda item: -item[1]):
        # The first of a document takes its document's score away.
        lifted.append((name, documents.pop(document_of[name], score)))
    return sorted(lifted, key=lambda item: -item[1])


def fused_score(score: float, k: int, rankings: int) -> float:
    """An RRF score relative to being first in every ranking: score * k / rankings, in 0..1."""
    return min(score * k / rankings, 1.0)


def dense_score(cosine: float) -> float:
    """A cosine clamped to 0..1: less than orthogonal says nothing more."""
    return min(max(cosine, 0.0), 1.0)


def sparse_score(bm25: float) -> float:
    """A BM25 score s as s / (s + 10): monotone, 0 at 0, and below 1."""
    return max(bm25, 0.0) / (max(bm25, 0.0) + SPARSE_HALF)
