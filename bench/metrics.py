"""How good a ranking is, against the judgements of people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice


def collapse(documents: Iterable[str]) -> list[str]:
    """The documents of a ranking of chunks, each where its first chunk stood."""
    return list(dict.fromkeys(documents))


def ndcg(ranking: Sequence[str], grades: Mapping[str, int], depth: int) -> float:
    """Normalised discounted cumulative gain of the first `depth` documents, 0..1.

    Linear gain: a document is worth its grade over log2(rank + 1), as in
    Järvelin and Kekäläinen 2002 and trec_eval. Grades of 0 or less are worth nothing.
    Raises ValueError when no grade is above 0: such a query measures nothing.
    """
    ideal = _gain(sorted(grades.values(), reverse=True)[:depth])
    if ideal == 0:
        raise ValueError("no document is relevant")
    return _gain([grades.get(document, 0) for document in ranking[:depth]]) / ideal


def recall(ranking: Sequence[str], grades: Mapping[str, int], depth: int) -> float:
    """Share of the relevant documents that stand among the first `depth`.

    Raises ValueError when no grade is above 0.
    """
    relevant = _relevant(grades)
    return len(relevant.intersection(ranking[:depth])) / len(relevant)


def reciprocal_rank(ranking: Sequence[str], grades: Mapping[str, int], depth: int) -> float:
    """1 over the rank of the first relevant document; 0 when none is among the first `depth`.

    Raises ValueError when no grade is above 0.
    """
    relevant = _relevant(grades)
    ranks = (rank for rank, document in enumerate(ranking, 1) if document in relevant)
    first = next(islice(ranks, 1), None)
    return 1 / first if first is not None and first <= depth else 0.0


def success(ranking: Sequence[str], grades: Mapping[str, int], depth: int) -> float:
    """1 when a relevant document stands among the first `depth`, else 0.

    Raises ValueError when no grade is above 0.
    """
    return float(recall(ranking, grades, depth) > 0)


def _relevant(grades: Mapping[str, int]) -> frozenset[str]:
    relevant = frozenset(document for document, grade in grades.items() if grade > 0)
    if not relevant:
        raise ValueError("no document is relevant")
    return relevant


def _gain(grades: Iterable[int]) -> float:
    return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades, 1) if grade > 0)
