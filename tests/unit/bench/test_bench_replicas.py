"""The arithmetic of the replicas' measurement."""

from __future__ import annotations

import json

import pytest

from bench.load import Reply
from bench.outages import Outages, Phase, targets
from bench.scaling import imbalance


@pytest.mark.parametrize(
    ("counts", "expected"), [([5, 5], 0), ([11, 9], 0.1), ([0, 4], 1), ([9, 3, 0], 1.25)]
)
def test_imbalance_is_the_largest_distance_from_the_even_share(
    counts: list[float], expected: float
) -> None:
    assert imbalance(counts) == pytest.approx(expected)


def test_nothing_cannot_be_shared() -> None:
    with pytest.raises(ValueError, match="nothing"):
        imbalance([0, 0])


def reply(status: int, *degraded: str) -> Reply:
    return Reply(status, json.dumps({"degraded": degraded}).encode(), 0.1)


def test_a_phase_tells_failures_from_answers_with_something_missing() -> None:
    queries = [reply(200), reply(200, "rerank"), reply(200, "dense", "rerank"), reply(503)]
    phase = Phase("one", queries, [reply(200), reply(504)])
    assert (phase.failed(), phase.index_failed()) == (1, 1)
    assert (phase.degraded("dense"), phase.degraded("rerank")) == (1, 2)
    outages = Outages([phase], {"embedder": [9, 11]}, {"embedder": 91.0})
    met = {target.name: target.met for target in targets(outages)}
    assert met == {
        "failed /query": False,
        "failed /index": False,
        "answers without the embedder": False,
        "calls of the embedder off the even share": True,
        "s until a new embedder is called": False,
    }
