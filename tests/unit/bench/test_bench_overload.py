"""The arithmetic of an overload."""

from __future__ import annotations

import os

import pytest

from bench.calls import OK, REFUSED, Call, Outcome
from bench.overload import CAUSES, TOO_MANY, Part, Piece, row, shed, targets
from bench.scrape import Metrics

PART = Part("a", "m", "s", "/s/M", (b"",), deadline_s=1.0, window_s=4.0, in_flight=(1,))
NOTHING_SHED = dict.fromkeys((*CAUSES, TOO_MANY), 0.0)


def counters(refused: float, **by_cause: float) -> Metrics:
    values = {
        ("rag_requests_shed_total", frozenset({("cause", cause)})): by_cause.get(cause, 0.0)
        for cause in CAUSES
    }
    labels = frozenset({("method", "M"), ("code", REFUSED)})
    values["rag_rpcs_total", labels] = refused
    return Metrics(values)


def test_a_row_counts_calls_by_what_became_of_them() -> None:
    calls = (
        Call(0.5, 0.0, 0.1, OK),  # before the window
        Call(1.0, 0.0, 0.2, OK),
        Call(2.0, 0.0, 0.4, OK),
        Call(2.1, 0.3, 0.8, OK),  # answered, 0.1 s after its deadline
        Call(3.0, 0.0, 0.002, REFUSED, "QUEUE_FULL", retry_after_s=0.5),
        Call(3.1, 0.0, 0.004, REFUSED, "QUEUE_FULL", retry_after_s=0.7),
        Call(3.2, 0.0, 1.0, "DEADLINE_EXCEEDED"),
        Call(4.0, 0.0, 0.1, "INTERNAL"),
        Call(4.9, 0.0, 0.5, OK),  # due in it, answered after its end
    )
    piece = Piece(Outcome(calls, 5.5, 0.1, 0), NOTHING_SHED | {"too_late": 2.0}, 0.01, 0.5, 4.0)
    made = row(PART, 2.0, [piece, piece])
    assert made["calls"] == 16
    assert made["offered_per_s"] == 8.0
    assert made["goodput_per_s"] == 2 / 4.0
    assert made["goodput_over_capacity"] == 2 / 4.0 / 4.0
    assert made["good_share"] == 3 / 8
    assert made["refused_share"] == 2 / 8
    assert made["late_share"] == 2 / 8
    assert made["failed_share"] == 1 / 8
    assert made["answered_ms"]["p50"] == pytest.approx(400)
    assert made["refused_ms"]["p50"] == pytest.approx(2)
    assert made["refused_ms"]["p99"] == pytest.approx(4)
    assert made["retry_after_p50_s"] == 0.5
    assert made["client_late_p99_ms"] == pytest.approx(300)
    assert made["shed"] == NOTHING_SHED | {"too_late": 4.0}
    assert made["goodput_per_cpu_s"] == 0.5 / 0.5
    assert made["worker_cpu_share"] == 0.5 / (os.cpu_count() or 1)


def test_a_load_without_calls_is_a_row_too() -> None:
    made = row(PART, 0.5, [Piece(Outcome((), 5.0, 0.0, 0), NOTHING_SHED, 0.0, 0.0, 1.0)])
    assert (made["calls"], made["good_share"], made["answered_ms"]) == (0, 0.0, None)


def test_what_was_refused_before_the_queue_is_the_rest_of_the_refusals() -> None:
    before = counters(0.0, too_late=1.0)
    after = counters(10.0, queue_full=2.0, too_late=4.0, expired=7.0)
    assert shed(before, after) == {
        "queue_full": 2.0, "too_late": 3.0, "expired": 7.0, "cancelled": 0.0, TOO_MANY: 5.0
    }  # fmt: skip
    assert shed(after, after) == NOTHING_SHED


def test_targets_look_at_the_worst_overload() -> None:
    rows = [
        {"multiple": multiple, "goodput_over_capacity": good, "refused_ms": refused_ms}
        for multiple, good, refused_ms in (
            (1.0, 0.2, None),
            (1.5, 0.9, {"p50": 9.0, "p99": 20.0}),
            (2.0, 1.2, {"p50": 4.0, "p99": 30.0}),
            (3.0, 1.1, {"p50": 1.0, "p99": 2.0}),
        )
    ]
    goodput, p50, p99 = targets({"name": "a", "rows": rows, "peak_over_capacity": 1.2})
    assert goodput.value == 0.9 / 1.2
    assert (p50.value, p99.value) == (9.0, 30.0)
    assert not any(target.met for target in (goodput, p50, p99))
