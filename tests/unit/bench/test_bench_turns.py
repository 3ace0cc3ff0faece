"""Taking turns, and what comes of it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pytest

from bench.reference import Computed
from bench.turns import Course, Subject, Turn, in_slices, take_turns


def course(name: str, *seconds: float) -> Course:
    empty = np.zeros((1, 2), np.float32)
    return Course(name, [Turn(Computed(empty, each), 0.5, 0.1) for each in seconds])


def test_everyone_gets_every_slice_in_turn() -> None:
    calls: list[object] = []

    def subject(name: str) -> Subject[str]:
        def compute(texts: Sequence[str]) -> Computed:
            calls.append((name, *texts))
            return Computed(np.array([len(text) for text in texts], np.float32), 2.0)

        return Subject(name, compute, (os.getpid(),))

    slices = [["a", "bb"], ["ccc"]]
    courses = take_turns([subject("x"), subject("y")], slices, lambda: calls.append("after"))

    both = [[("x", *each), ("y", *each), "after"] for each in slices]
    assert calls == [*both[0], *both[1]]
    assert [one.name for one in courses] == ["x", "y"]
    assert courses[0].values.tolist() == [1, 2, 3]
    assert courses[0].seconds == 4.0


def test_ratios_are_medians_over_the_slices() -> None:
    base, fast = course("base", 4, 6, 80), course("fast", 2, 1, 20)
    assert fast.times_as_fast_as(base) == 4  # of 2, 6 and 4; in total it is 3.9
    assert base.times_as_fast_as(base) == 1


def test_cpu_time_of_those_that_wait_is_a_share_of_the_time() -> None:
    one = course("one", 1, 3)
    assert one.cpu_s == 1.0
    assert one.waiting_share == pytest.approx(0.05)


def test_slices_hold_everything_once_in_order() -> None:
    assert in_slices(list(range(7)), 3) == [[0, 1], [2, 3], [4, 5, 6]]
    assert in_slices("ab", 1) == ["ab"]
    for count in (0, 3):
        with pytest.raises(ValueError, match="are not enough"):
            in_slices("ab", count)
