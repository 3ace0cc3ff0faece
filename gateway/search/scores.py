"""Ranks fused, and raw scores brought to 0..1."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final, TypeVar

# BM25 score at which a passage counts as half certain: about that of a chunk which holds
# two of the question's rarer words.
SPARSE_HALF: Final = 10.0


K = TypeVar("K", bound=Hashable)


def fuse(rankings: Sequence[Sequence[K]], k: int) -> list[tuple[K, float]]:
    """Reciprocal rank fusion: score(d) = sum over rankings of 1 / (k + rank), ranks from 0.

    Cormack, Clarke and Büttcher 2009, counted from 0 as Qdrant counts it. Best first; ties
    in the order in which the rankings first named them.
    """
    scores: dict[K, float] = {}
    for ranking in rankings:
        for rank, name in enumerate(ranking):
            scores[name] = scores.get(name, 0.0) + 1.0 / (k + rank)
    return sorted(scores.items(), key=lambda item: -item[1])


def fused_score(score: float, k: int, rankings: int) -> float:
    """An RRF score relative to being first in every ranking: score * k / rankings, in 0..1."""
    return min(score * k / rankings, 1.0)


def dense_score(cosine: float) -> float:
    """A cosine clamped to 0..1: less than orthogonal says nothing more."""
    return min(max(cosine, 0.0), 1.0)


def sparse_score(bm25: float) -> float:
    """A BM25 score s as s / (s + 10): monotone, 0 at 0, and below 1."""
    return max(bm25, 0.0) / (max(bm25, 0.0) + SPARSE_HALF)
