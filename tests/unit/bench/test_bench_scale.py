"""Synthetic documents stay the same and look like real ones; recall counts what was found."""

from __future__ import annotations

import numpy as np
import pytest

from bench.scale_corpus import CHUNKS_A_DOCUMENT, Corpus, Nearest, document_id, team_of
from bench.scale_plot import picture


def a_corpus() -> Corpus:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((50, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Corpus([f"passage {number} says something" for number in range(50)], vectors)


def test_the_same_number_gives_the_same_document() -> None:
    one, again, other = a_corpus().document(7), a_corpus().document(7), a_corpus().document(8)
    assert one == again
    assert one.document_id == document_id(7) != other.document_id
    assert one.metadata["team"] == team_of(7) == team_of(27)
    assert len(one.chunks) == CHUNKS_A_DOCUMENT
    assert one.content_sha256 != other.content_sha256


def test_vectors_are_of_length_one_and_those_of_the_chunks() -> None:
    corpus = a_corpus()
    vectors = corpus.vectors(3)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert [chunk.vector for chunk in corpus.document(3).chunks] == [
        vector.tobytes() for vector in vectors
    ]


def test_recall_is_the_share_of_the_nearest_that_was_found() -> None:
    questions = np.eye(2, 3, dtype=np.float32)
    nearest = Nearest(questions, 2)
    nearest.add(["a", "b"], np.array([[0.9, 0, 0], [0.1, 0.2, 0]], np.float32))
    nearest.add(["c", "d"], np.array([[0.8, 0.7, 0], [0, 0.1, 0]], np.float32))
    # Of the first question a and c, of the second c and b.
    assert nearest.recall([["a", "c"], ["b", "c"]]) == 1
    assert nearest.recall([["a", "d"], ["c", "b"]]) == pytest.approx(0.75)
    assert nearest.recall([[], []]) == 0


def test_the_picture_draws_every_state_from_the_size_on_that_it_has() -> None:
    def state(ms: float) -> dict[str, object]:
        return {
            "searches": {"hybrid": {"p50_ms": ms, "p99_ms": 2 * ms}},
            "searched_rss_mib": 100.0 * ms,
        }

    small = {"chunks": 1_000, "states": {"as written": state(1.0)}}
    large = {"chunks": 50_000, "states": {"as written": state(6.0), "optimised": state(2.0)}}
    drawn = picture({"rows": [small, large]})
    assert all(f">{name} p99<" in drawn for name in ("as written", "optimised"))
    assert "with a graph" not in drawn
    # Both panels: two points of the first state, one of the second; the left one twice (p50, p99).
    assert drawn.count("<circle") == 3 * 3
