"""The arithmetic of the comparison of backends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bench import vectors
from bench.apart import apart
from bench.backends import (
    SHAPES,
    Trial,
    _take_turn,
    cosine_table,
    cost_table,
    default_name,
    speed_table,
)
from bench.contestants import BatchShape, Contestant, Done, Work, measured

ONE, MANY = BatchShape(1, 16), BatchShape(8, 112)


def course(tokens_per_s: float) -> Trial:
    done = [Done(tokens_per_s * factor, 2.0 * (factor == 1), 300) for factor in (1, 1.5, 0.5)]
    return Trial({ONE.name: done, MANY.name: done})


def failing() -> Contestant:
    def work(_: Work) -> Done:
        raise RuntimeError("no C++ compiler")

    return work


def test_speeds_are_medians_and_multiples_of_the_reference() -> None:
    courses = {"torch fp32": course(1000), "other": course(4000)}
    assert speed_table(courses, (ONE, MANY)).rows == [
        ("torch fp32", "1.00 (1,000)", "1.00 (1,000)"),
        ("other", "4.00 (4,000)", "4.00 (4,000)"),
    ]
    assert cost_table(courses).rows[1] == ("other", "2.00", "300")


def test_one_that_fails_is_out_and_the_others_go_on() -> None:
    broken = Trial()
    with apart(failing) as contestant:
        _take_turn(broken, contestant, Work(ONE, 0.1))
        _take_turn(broken, contestant, Work(MANY, 0.1))
    assert broken.fault == "RuntimeError: no C++ compiler"
    courses = {"torch fp32": course(1000), "broken": broken}
    assert speed_table(courses, (ONE,)).rows[1] == ("broken", "-")
    assert cost_table(courses).rows[1] == ("broken", "-", "-")


def test_each_shape_is_prepared_once_and_run_by_every_stream() -> None:
    prepared: list[BatchShape] = []
    runs: list[int] = []

    def prepare(shape: BatchShape) -> list[Callable[[], object]]:
        prepared.append(shape)
        return [lambda: runs.append(0), lambda: runs.append(1)]

    contestant = measured(prepare)
    first, second = (contestant(Work(MANY, 0.01)) for _ in range(2))
    assert prepared == [MANY]
    assert first.prepare_s > 0
    assert second.prepare_s == 0
    assert first.tokens_per_s > 8 * 112 / 0.02
    assert first.rss_mib > 1
    assert set(runs) == {0, 1}


def test_the_default_is_dynamic_with_all_streams() -> None:
    names = ["torch fp32", "OpenVINO bf16, 1 stream", "OpenVINO bf16, 4 streams"]
    courses = {name: Trial() for name in [*names, "OpenVINO bf16, 4 streams, a shape each"]}
    assert default_name("bf16", courses) == "OpenVINO bf16, 4 streams"


def test_shapes_have_names_and_no_padding() -> None:
    ids, mask = SHAPES[-1].batch()
    assert SHAPES[-1].name == "32x112"
    assert ids.shape == mask.shape == (32, 112)
    assert ids.dtype == mask.dtype == np.int64
    assert mask.all()


def test_the_least_cosine_decides() -> None:
    reference = np.array([[1, 0], [0, 2]], np.float32)
    cosines = vectors.cosines(np.array([[3, 0], [1, 1]], np.float32), reference)
    assert cosines == pytest.approx([1, 0.5**0.5])
    assert cosine_table({"a": cosines, "b": cosines[:1].repeat(2)}).rows == [
        ("a", "0.70711", "0.85355", "no"),
        ("b", "1.00000", "1.00000", "yes"),
    ]
