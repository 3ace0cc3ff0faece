"""Fusion and scales."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.search.scores import dense_score, fuse, fused_score, sparse_score

DOCUMENTS = {"a1": "a", "a2": "a", "b1": "b", "b2": "b", "c1": "c"}


def test_fusion_by_hand() -> None:
    fused = fuse((["a1", "b1", "a2"], ["b2", "c1", "a2"]), DOCUMENTS, 10)
    # Documents by rank: a 1st and 3rd, b 2nd and 1st, c 2nd of the second ranking alone.
    assert dict(fused) == pytest.approx(
        {
            "b2": 1 / 11 + 1 / 10,
            "a2": 1 / 10 + 1 / 12,
            "c1": 1 / 11,
            "a1": 1 / 10,
            "b1": 1 / 11,
        }
    )
    assert [name for name, _ in fused] == ["b2", "a2", "a1", "b1", "c1"]


def test_one_passage_per_document_is_plain_reciprocal_rank_fusion() -> None:
    fused = fuse((["a", "b", "c"], ["b", "d"]), {name: name for name in "abcd"}, 10)
    assert [name for name, _ in fused] == ["b", "a", "d", "c"]
    assert dict(fused) == pytest.approx(
        {"b": 1 / 11 + 1 / 10, "a": 1 / 10, "d": 1 / 11, "c": 1 / 12}
    )


def test_many_passages_of_a_document_do_not_push_the_next_one_down() -> None:
    long = [f"a{number}" for number in range(8)]
    document_of = {name: name[0] for name in (*long, "b", "c")}
    ranks = [name[0] for name, _ in fuse(([*long, "b"], ["c", *long, "b"]), document_of, 10)]
    assert ranks.index("b") < 4


@given(
    st.lists(st.lists(st.integers(0, 30), unique=True), min_size=1, max_size=3),
    st.integers(1, 100),
    st.integers(1, 31),
)
def test_fused_scores_are_in_order_and_in_range(
    rankings: list[list[int]], k: int, documents: int
) -> None:
    document_of = {name: str(name % documents) for name in range(31)}
    fused = [
        (name, fused_score(score, k, len(rankings)))
        for name, score in fuse(rankings, document_of, k)
    ]
    scores = [score for _, score in fused]
    assert len(fused) == len(dict(fused))
    assert {name for name, _ in fused} == {name for ranking in rankings for name in ranking}
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 for score in scores)
    # A document's best passage is the first of it.
    best = {document_of[name]: score for name, score in reversed(fused)}
    assert all(best[document_of[name]] >= score for name, score in fused)


def test_first_in_every_ranking_is_one() -> None:
    [(_, score)] = fuse((["a"], ["a"]), {"a": "a"}, 10)
    assert fused_score(score, 10, 2) == pytest.approx(1.0)


@given(st.floats(-2, 2))
def test_dense_is_clamped(cosine: float) -> None:
    assert dense_score(cosine) == min(max(cosine, 0.0), 1.0)


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_sparse_keeps_the_order(one: float, other: float) -> None:
    assert (one <= other) == (sparse_score(one) <= sparse_score(other)) or one == pytest.approx(
        other
    )
    assert 0 <= sparse_score(one) < 1
