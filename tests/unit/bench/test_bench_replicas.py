"""The arithmetic of the replicas' and the memory's measurement."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import islice

import pytest

from bench.load import Reply
from bench.memory import LONGEST_WORDS, medians, pieces
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


def test_medians_cover_every_value_once_and_in_order() -> None:
    assert medians([1, 2, 3, 10, 20, 30, 7], 2) == [2, 15]
    assert medians([4.0, 2.0], 2) == [4, 2]
    with pytest.raises(ValueError, match="2 values"):
        medians([1, 2], 3)


def test_pieces_have_every_length_and_are_the_books_own_words() -> None:
    words = [str(number) for number in range(1000)]
    drawn = [piece.split(" ") for piece in islice(pieces(words, random.Random(1)), 5000)]
    lengths = Counter(len(piece) for piece in drawn)
    assert (min(lengths), max(lengths)) == (1, LONGEST_WORDS)
    for piece in drawn[:100]:
        start = int(piece[0])
        assert piece == words[start : start + len(piece)]


def test_a_short_text_has_short_pieces() -> None:
    assert set(islice(pieces(["a", "b"], random.Random(1)), 50)) == {"a", "b", "a b"}


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
