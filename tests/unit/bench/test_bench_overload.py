"""The arithmetic of an overload and of an interference."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from bench.calls import OK, REFUSED, Call, Outcome
from bench.datasets import Document
from bench.gateway_interference import KINDS, by_kind, divided
from bench.interference import call_row, reply_row, targets
from bench.load import Reply
from bench.overload import CAUSES, TOO_MANY, Part, Piece, row, shed
from bench.scrape import Metrics

PART = Part("a", "m", "s", "/s/M", (b"",), deadline_s=1.0, window_s=4.0, in_flight=(1,))
NOTHING_SHED = dict.fromkeys((*CAUSES, TOO_MANY), 0.0)


def counters(refused: float | None, **by_cause: float) -> Metrics:
    values = {
        ("rag_requests_shed_total", frozenset({("cause", cause)})): by_cause.get(cause, 0.0)
        for cause in CAUSES
    }
    if refused is not None:
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
    piece = Piece(Outcome(calls, 5.5, 0.1, 0), NOTHING_SHED | {"too_late": 2.0}, 0.01, 0.5)
    made = row(PART, 2.0, 1.0, [piece, piece])
    assert made["calls"] == 16
    assert made["goodput_per_s"] == 2 / 4.0
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
    made = row(PART, 0.5, 1.0, [Piece(Outcome((), 5.0, 0.0, 0), NOTHING_SHED, 0.0, 0.0)])
    assert (made["calls"], made["good_share"], made["answered_ms"]) == (0, 0.0, None)


def test_what_was_refused_before_the_queue_is_the_rest_of_the_refusals() -> None:
    before = counters(None, too_late=1.0)
    after = counters(10.0, queue_full=2.0, too_late=4.0, expired=7.0)
    assert shed(before, after) == {
        "queue_full": 2.0, "too_late": 3.0, "expired": 7.0, "cancelled": 0.0, TOO_MANY: 5.0
    }  # fmt: skip
    assert shed(after, after) == NOTHING_SHED


def test_what_is_not_the_model_includes_the_wait_for_it() -> None:
    calls = [Call(0.0, 0.5, 0.010, OK, model_ms=6.0, queue_ms=1.0), Call(0.0, 0.0, 1.0, REFUSED)]
    made = call_row("x", calls)
    assert made["took_ms"]["p50"] == pytest.approx(10)  # from the moment it was sent
    assert made["other_ms"]["p50"] == pytest.approx(4)
    assert made["other_share"] == pytest.approx(0.4)
    assert made["failed"] == 1
    with pytest.raises(ValueError, match="rag-model-ms"):
        call_row("x", [replace(calls[0], model_ms=None)])


def test_the_target_beside_bulk_is_three_times_idle_and_one_quantum() -> None:
    rows = [
        {"case": case, "took_ms": {"p95": p95}, "other_ms": {"p50": 0.5}}
        for case, p95 in (
            ("one after another", 3.0), ("20 a second", 5.0), ("20 a second, bulk beside", 30.5)
        )
    ]  # fmt: skip
    model, slow, kept = targets(rows, [{"kept": 0.85}])
    assert (model.met, kept.met) == (True, True)
    assert slow.limit == 30.0
    assert not slow.met


def test_replies_are_told_apart_by_kind_and_degradation_is_counted() -> None:
    replies = [
        Reply(200, json.dumps({"degraded": degraded}).encode(), 0.1)
        for degraded in ([], ["rerank"], [], ["query_truncated"], [], ["rerank", "generation"])
    ] + [Reply(503, b"", 0.01)]
    searches, queries = by_kind(replies).values()
    assert len(KINDS) == 2
    assert [len(searches), len(queries)] == [4, 3]
    made = reply_row("/query", "idle", queries)
    assert made["degraded"] == {"rerank": 2, "generation": 1}
    assert (made["answers"], made["refused"]) == (3, 0)
    assert reply_row("/search", "idle", searches)["refused"] == 1


def test_a_book_is_divided_without_loss_into_a_tenth_and_two_halves() -> None:
    book = [Document(str(n), "x" * (n % 17 + 1) * 100) for n in range(200)]
    first, alone, shared = divided(book)
    assert sorted((*first, *alone, *shared), key=lambda one: int(one.id)) == book
    sizes = [sum(len(document.text) for document in part) for part in (first, alone, shared)]
    assert sizes[0] / sum(sizes) == pytest.approx(0.1, abs=0.01)
    assert sizes[1] / sizes[2] == pytest.approx(1.0, abs=0.02)
    assert divided(book) == (first, alone, shared)
