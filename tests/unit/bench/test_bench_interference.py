"""The arithmetic of an interference."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bench.calls import OK, REFUSED, Call
from bench.datasets import Document
from bench.gateway_interference import KINDS, by_kind, divided
from bench.interference import call_row, reply_row, targets
from bench.load import Reply
from encoders.limits import Limits


def test_what_is_not_the_model_includes_the_wait_for_it() -> None:
    calls = [Call(0.0, 0.5, 0.010, OK, model_ms=6.0, queue_ms=1.0), Call(0.0, 0.0, 1.0, REFUSED)]
    made = call_row("x", calls)
    assert made["latency_ms"]["p50"] == pytest.approx(510)  # from the moment it was due
    assert made["client_late_ms"]["p99"] == pytest.approx(500)
    assert made["other_ms"]["p50"] == pytest.approx(4)
    assert made["other_share"] == pytest.approx(0.4)
    assert made["failed"] == 1
    with pytest.raises(ValueError, match="rag-model-ms"):
        call_row("x", [replace(calls[0], model_ms=None)])


def test_the_target_beside_bulk_is_three_times_idle_and_one_quantum() -> None:
    rows = [
        {"case": case, "latency_ms": {"p95": p95}, "other_ms": {"p50": 0.5}}
        for case, p95 in (
            ("one after another", 3.0), ("20 a second", 5.0), ("20 a second, bulk beside", 45.5)
        )
    ]  # fmt: skip
    model, slow, kept = targets(rows, [{"kept": 0.85}])
    assert (model.met, kept.met) == (True, True)
    assert slow.limit == 15.0 + Limits().bulk_quantum_s * 1000 == 45.0
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
