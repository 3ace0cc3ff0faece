"""Fusion and scales."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.search.scores import dense_score, fuse, fused_score, sparse_score


def test_fusion_by_hand() -> None:
    fused = fuse((["a", "b", "c"], ["b", "d"]), 10)
    assert [name for name, _ in fused] == ["b", "a", "d", "c"]
    assert dict(fused) == pytest.approx(
        {"b": 1 / 11 + 1 / 10, "a": 1 / 10, "d": 1 / 11, "c": 1 / 12}
    )


@given(
    st.lists(st.lists(st.integers(0, 30), unique=True), min_size=1, max_size=3),
    st.integers(1, 100),
)
def test_fused_scores_are_in_order_and_in_range(rankings: list[list[int]], k: int) -> None:
    fused = [(name, fused_score(score, k, len(rankings))) for name, score in fuse(rankings, k)]
    scores = [score for _, score in fused]
    assert {name for name, _ in fused} == {name for ranking in rankings for name in ranking}
    assert scores == sorted(scores, reverse=True)
    assert all(0 < score <= 1 for score in scores)


def test_first_in_every_ranking_is_one() -> None:
    [(_, score)] = fuse((["a"], ["a"]), 10)
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
