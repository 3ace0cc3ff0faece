"""Whether a worker grew, and whether it worked meanwhile."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from itertools import islice
from random import Random

import pytest

from bench.memory import LONGEST_WORDS, Watched, medians, pieces, targets
from bench.worker import Worker


@pytest.fixture
def worker() -> Worker:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return Worker("", "", "", 0.0, ended)


def test_medians_cover_every_value_once_and_in_order() -> None:
    assert medians([1, 2, 3, 10, 20, 30, 7], 2) == [2, 15]
    assert medians([4.0, 2.0], 2) == [4, 2]
    with pytest.raises(ValueError, match="2 values"):
        medians([1, 2], 3)


def test_pieces_have_every_length_and_are_the_books_own_words() -> None:
    words = [str(number) for number in range(1000)]
    drawn = [piece.split(" ") for piece in islice(pieces(words, Random(1)), 5000)]
    lengths = Counter(len(piece) for piece in drawn)
    assert (min(lengths), max(lengths)) == (1, LONGEST_WORDS)
    for piece in drawn[:100]:
        start = int(piece[0])
        assert piece == words[start : start + len(piece)]


def test_a_short_text_has_short_pieces() -> None:
    assert set(islice(pieces(["a", "b"], Random(1)), 50)) == {"a", "b", "a b"}


def test_growth_is_counted_from_the_moment_the_worker_was_ready(worker: Worker) -> None:
    watched = Watched(worker, 100.0, [130.0] * 10, calls=20)
    grown, answered = targets("embedder", watched)
    assert (grown.value, grown.met) == (1.3, False)
    assert answered.met


def test_a_worker_that_refuses_everything_does_not_pass(worker: Worker) -> None:
    rss_mib = [100.0] * 10
    idle = Watched(worker, 100.0, rss_mib)
    refused = Watched(worker, 100.0, rss_mib, calls=20, refused=20)
    failed = Watched(worker, 100.0, rss_mib, calls=20, refused=1, failed=1)
    for watched in (idle, refused, failed):
        grown, answered = targets("embedder", watched)
        assert grown.met
        assert not answered.met
