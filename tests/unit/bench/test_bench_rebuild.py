"""The arithmetic of a rebuild's cost."""

from __future__ import annotations

import json

import pytest

from bench.load import Reply
from bench.rebuild import KINDS, Round, Writes, _rows, targets

ANSWER = json.dumps({"degraded": []}).encode()


def replies(*latencies_s: float, status: int = 200) -> list[Reply]:
    """One of each kind per latency: reranking takes ten times as long."""
    assert [kind for kind, _ in KINDS] == ["/search without reranking", "/search"]
    return [
        Reply(status, ANSWER, latency_s * factor) for latency_s in latencies_s for factor in (1, 10)
    ]


def test_the_ratio_is_of_all_rounds_and_each_kind() -> None:
    first = Round(replies(0.010), replies(0.015), 3, 1.0)
    second = Round(replies(0.020), replies(0.050), 3, 1.0)
    rounds = [first, second]
    fast, slow, reads, failed, lost = targets(list(_rows(rounds)), Writes(failed=0, lost=1))
    assert (fast.value, slow.value) == (pytest.approx(2.5), pytest.approx(2.5))
    assert (reads.met, failed.met, lost.met) == (True, True, False)


def test_a_read_that_failed_is_counted() -> None:
    rounds = [Round(replies(0.010), replies(0.010) + replies(1.0, status=503), 3, 1.0)]
    reads = next(one for one in targets([*_rows(rounds)], Writes()) if one.name == "failed reads")
    assert (reads.value, reads.met) == (2, False)
