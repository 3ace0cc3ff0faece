"""Ranking metrics against values worked out by hand."""

from __future__ import annotations

import math

import pytest

from bench.metrics import collapse, ndcg, recall, reciprocal_rank, success

GRADES = {"a": 3, "b": 1, "c": 2, "d": 0, "e": -1}


def test_a_document_stands_where_its_first_chunk_stood() -> None:
    assert collapse(["b", "a", "b", "c", "a"]) == ["b", "a", "c"]


def test_ndcg_uses_linear_gain() -> None:
    # Grades of the ranking: 1, 0, 3; ideal order: 3, 2, 1.
    found = 1 / math.log2(2) + 3 / math.log2(4)
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    assert ndcg(["b", "d", "a"], GRADES, 10) == pytest.approx(found / ideal)
    # By hand: 2.5 / 4.76186 (2^grade - 1 as gain would give 4.5 / 9.39).
    assert ndcg(["b", "d", "a"], GRADES, 10) == pytest.approx(0.52501, abs=1e-5)


def test_ndcg_is_one_for_the_ideal_order_and_zero_without_a_find() -> None:
    assert ndcg(["a", "c", "b", "x"], GRADES, 10) == 1
    assert ndcg(["x", "d", "e"], GRADES, 10) == 0
    assert ndcg([], GRADES, 10) == 0


def test_ndcg_cuts_the_ideal_order_as_it_cuts_the_ranking() -> None:
    # 20 relevant documents, all of the first 10 relevant: perfect at depth 10.
    grades = {str(number): 1 for number in range(20)}
    assert ndcg([str(number) for number in range(10)], grades, 10) == pytest.approx(1)
    # The only relevant document at rank 11 is worth nothing at depth 10.
    assert ndcg([*"abcdefghij", "z"], {"z": 1}, 10) == 0


def test_recall_counts_the_relevant_among_the_first() -> None:
    assert recall(["a", "x", "b"], GRADES, 50) == pytest.approx(2 / 3)
    assert recall(["x", "a"], GRADES, 1) == 0
    assert recall(["a", "b", "c"], GRADES, 2) == pytest.approx(2 / 3)


def test_reciprocal_rank_is_of_the_first_relevant() -> None:
    assert reciprocal_rank(["x", "d", "c", "a"], GRADES, 10) == pytest.approx(1 / 3)
    assert reciprocal_rank(["x", "d", "c", "a"], GRADES, 2) == 0
    assert reciprocal_rank(["x"], GRADES, 10) == 0


def test_success_is_all_or_nothing() -> None:
    assert success(["x", "y", "b"], GRADES, 3) == 1
    assert success(["x", "y", "z", "b"], GRADES, 3) == 0


@pytest.mark.parametrize("measure", [ndcg, recall, reciprocal_rank, success])
def test_a_question_without_a_relevant_document_measures_nothing(measure) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="no document is relevant"):
        measure(["d"], {"d": 0}, 10)
