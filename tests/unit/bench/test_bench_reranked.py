"""Orders of the same passages: what a reranker brings, and what the best order would."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from support.workers import Script, reranker

from bench import reranked
from bench.candidates import Candidates
from bench.contestants import MODEL
from bench.reranked import BEST, GUARDED, RETRIEVAL, fused, measure, report


def candidates(gold: str, *documents: str, rest: tuple[str, ...] = ()) -> Candidates:
    passages = tuple(f"{'x' * at} of {document}" for at, document in enumerate(documents))
    return Candidates("why?", {gold: 1}, passages, documents, rest)


ASKED = [candidates("b", "a", "b", "c"), candidates("z", "a", "b", "c", "d", "z")]
# The first scores put the gold passage first, the others leave the order as it is.
RIGHT = [[0.1, 0.9, 0.2], [0.5, 0.2, 0.3, 0.4, 0.9]]
AS_BEFORE = [[0.9, 0.5, 0.1], [0.9, 0.8, 0.7, 0.6, 0.5]]


def test_a_document_stands_where_its_first_passage_does() -> None:
    one = candidates("b", "a", "b", "a", "c", rest=("b", "d"))
    assert one.ranking(range(4)) == ["a", "b", "c", "d"]
    assert one.ranking([3, 2, 1, 0]) == ["c", "a", "b", "d"]


def test_no_order_beats_the_best_one() -> None:
    one = Candidates("q", {"b": 1, "d": 3, "e": 2}, ("",) * 4, tuple("abcd"), ("e",))
    best = reranked._quality([one], [one.best_order])
    assert one.best_order[:2] == [3, 1]
    for order in itertools.permutations(range(4)):
        quality = reranked._quality([one], [order])
        assert quality.means["nDCG@10"] <= best.means["nDCG@10"]


def test_orders_are_measured_and_the_gap_between_them() -> None:
    found = measure(ASKED, {"right": RIGHT, "same": AS_BEFORE}, 10)
    assert list(found.orders) == [RETRIEVAL, BEST, "right", "right, fused", "same", "same, fused"]
    assert (found.questions, found.passages) == (2, 8)
    # "<x a position> of <a letter>".
    assert found.characters == 8 * len(" of a") + sum(range(3)) + sum(range(5))
    assert found.orders["right"] == found.orders[BEST]
    assert found.orders["same"] == found.orders["same, fused"] == found.orders[RETRIEVAL]
    assert found.gap_closed("right") == pytest.approx(1)
    assert found.gap_closed("same") == pytest.approx(0)
    # The last of five stays behind the first, which the scores put second.
    assert 0 < found.gap_closed(fused("right")) < 1
    assert found.top_3_change("right") == pytest.approx(1)
    assert found.p("same") == 1


def test_where_no_order_is_better_no_gap_is_closed() -> None:
    perfect = measure([candidates("a", "a", "b")], {"worse": [[0.1, 0.9]]}, 10)
    assert perfect.gap_closed("worse") == 0


def test_the_default_is_held_to_the_targets_and_to_what_was_committed() -> None:
    measured = {"one": measure(ASKED, {"m": RIGHT}, 10), "two": measure(ASKED, {"m": RIGHT}, 10)}
    made = report(measured, fused("m"), {"m": {"one": 12.5, "two": 7.25}})
    assert [target.met for target in made.targets] == [True, True, True]
    assert set(made.figures["quality"]) == {"one", "two"}
    assert set(made.figures["quality"]["one"]) == {GUARDED}
    assert len(made.failures) == 2  # nothing was committed for such collections
    text = made.text()
    assert "+100%" in text
    assert "one: 4 × 7" in text
    cost = next(
        line.split() for line in text.splitlines() if line.startswith("| m ") and "12.5" in line
    )
    assert cost == ["|", "m", "|", "12.5", "|", "7.25", "|"]
    other = report(measured, fused("another"), {"m": {"one": 1.0, "two": 1.0}})
    assert (other.targets, other.failures, other.figures["quality"]) == ([], [], {})


def test_a_worse_order_misses_the_targets() -> None:
    backwards = [[0.2, 0.1, 0.3], [0.9, 0.8, 0.7, 0.6, 0.5]]
    measured = {"one": measure(ASKED, {"m": backwards}, 10)}
    made = report(measured, "m", {"m": {"one": 1.0}})
    assert measured["one"].gap_closed("m") < 0
    assert [target.met for target in made.targets] == [False, False]


async def test_each_question_gets_its_own_scores() -> None:
    script = Script()
    async with reranker(script) as target:
        found = await asyncio.to_thread(reranked._score, target, ASKED)
    # The stand-in scores a passage by its length.
    expected = [[1 / (1 + len(text)) for text in one.passages] for one in ASKED]
    assert [pytest.approx(values) for values in found.scores] == expected
    assert found.seconds > 0


def test_the_usual_models_are_each_tried_once() -> None:
    assert reranked.usual("some/other") == (MODEL, "some/other")
    assert reranked.usual(MODEL) == (MODEL,)
