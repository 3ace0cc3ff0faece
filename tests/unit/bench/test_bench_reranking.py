"""A reranker asked by several callers at once, and the report of it."""

from __future__ import annotations

import numpy as np
import pytest
from support.workers import Script, reranker

from bench.flood import score_all
from bench.reference import Computed, QueryPassages
from bench.reranking import _report
from bench.turns import Course, Turn


def course(name: str, seconds: float, *scores: float) -> Course:
    return Course(name, [Turn(Computed(np.array(scores, np.float32), seconds), 1.0, 0.0)])


async def test_scores_come_in_the_order_of_the_questions() -> None:
    script = Script()
    questions = [QueryPassages("why?", ("x" * length, "y")) for length in range(1, 10)]
    async with reranker(script) as target:
        computed = await score_all(target, questions, 4)
    # The stand-in scores a passage by its length.
    expected = [score for length in range(1, 10) for score in (1 / (1 + length), 0.5)]
    assert computed.values.tolist() == pytest.approx(expected)
    assert computed.seconds > 0


def test_the_cross_encoder_is_held_to_the_target_and_the_default_is_beside_it() -> None:
    questions = [QueryPassages("why?", ("a", "b"))] * 2
    base = course("base", 8, 0.1, 0.2, 0.3, 0.4)
    ours, default = course("ours", 2, 0.1, 0.25, 0.3, 0.4), course("default", 1, 1, 1, 1, 1)

    report = _report([base, ours, default], questions)

    floor, aim = report.targets
    assert (floor.value, floor.met, aim.met) == (4, True, False)
    assert [row[1:5] for row in report.tables[0].rows] == [
        ("0.500", "0.250", "1.00", "0.0000"),
        ("2.00", "1.00", "4.00", "0.0500"),
        ("4.00", "2.00", "8.00", ""),
    ]
