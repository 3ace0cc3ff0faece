"""What a reader's spans make of sentences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.identity import fingerprint
from encoders.location import locate
from encoders.reading import Read
from generator_worker.engines.base import Passage
from generator_worker.engines.extractive import marked, read_sentences
from generator_worker.evidence import (
    EMBEDDER,
    LEAST_MARKED,
    READER,
    Evidence,
    find_evidence,
    probabilities,
)
from generator_worker.selection import Sentence
from generator_worker.sentences import Place
from generator_worker.settings import GeneratorSettings


def reading(passage: str, answer: str, score: float = 4.0, cut: int | None = None) -> Read:
    """Of a token a character: the answer's first begins it, its last ends it."""
    size = len(passage[:cut])
    begins = np.full(size, -10.0, np.float32)
    ends = begins.copy()
    at = passage.find(answer) if answer else -1
    if 0 <= at < size:
        begins[at] = ends[at + len(answer) - 1] = score / 2
    places = np.arange(size)
    return Read(begins, ends, 0.0, np.stack([places, places + 1], axis=1))


PASSAGE = "It is **old** here. The tower has 324 metres. Nobody knows why."


def test_the_sentence_that_holds_the_span_has_it_as_its_evidence() -> None:
    sentences = read_sentences([Passage(PASSAGE)])
    found = find_evidence(sentences, [reading(PASSAGE, "324 metres")])
    first, second, third = (one for one in found if one is not None)
    assert second.score == pytest.approx(4)
    assert PASSAGE[second.place.start : second.place.end] == "324 metres"
    assert max(first.score, third.score) < 0


def test_what_was_not_read_has_no_evidence() -> None:
    sentences = read_sentences([Passage(PASSAGE), Passage("Another passage is here.")])
    found = find_evidence(sentences, [reading(PASSAGE, "324 metres", cut=20)])
    assert [one is None for one in found] == [False, True, True, True]
    assert find_evidence([Sentence(0, 0, "Without a place.")], [reading("x", "x")]) == [None]


def test_the_weights_are_those_of_the_models_that_are_shipped() -> None:
    used = {
        "embedding": GeneratorSettings.model_fields["embedding_model"].default,
        "reader": GeneratorSettings.model_fields["reader_model"].default,
    }
    found = [fingerprint(locate(name), kind=kind) for kind, name in used.items()]
    assert found == [EMBEDDER, READER]


def test_of_a_sentence_cut_between_two_passages_the_better_part_counts() -> None:
    passages = ["The power of it comes from the patterns that", "comes from the patterns that win."]
    sentences = read_sentences([Passage(text) for text in passages])
    reads = [reading(text, "win", 6.0) for text in passages]
    (found,) = find_evidence(sentences, reads)
    assert found == Evidence(Place(1, 29, 32), 6.0)


@given(
    st.floats(-1, 1, width=32),
    st.floats(-30, 30, width=32),
    st.floats(0.0625, 1, width=32),
)
def test_more_evidence_and_more_relevance_are_more_probable(
    relevance: float, score: float, more: float
) -> None:
    place = Place(0, 0, 1)
    values = probabilities(
        np.array([relevance, relevance, relevance + more, relevance, relevance + more], np.float32),
        [Evidence(place, score), Evidence(place, score + more), Evidence(place, score), None, None],
    )
    assert ((values >= 0) & (values <= 1)).all()
    assert values[0] <= min(values[1], values[2])
    assert values[3] <= values[4]


def test_probabilities_lie_on_both_sides_of_a_half() -> None:
    place = Place(0, 0, 1)
    relevance = np.array([0.8, 0.2, 0.8, 0.2], np.float32)
    likely, unlikely, unread, unread_far = probabilities(
        relevance, [Evidence(place, 8.0), Evidence(place, -8.0), None, None]
    )
    assert min(likely, unread) > 0.5 > max(unlikely, unread_far)


TWO = [Passage("abcdefghijkl"), Passage("mnopqrstuvwx")]


def test_spans_that_the_reader_takes_for_answers_are_marked_once_each() -> None:
    found = [
        Evidence(Place(1, 5, 9), 0.5),
        Evidence(Place(0, 3, 4), 1.0),
        Evidence(Place(0, 1, 2), -0.5),
        None,
        Evidence(Place(0, 3, 4), 2.0),
    ]
    assert marked(found, TWO) == (Place(0, 3, 4), Place(1, 5, 9))
    assert marked([Evidence(Place(0, 3, 4), LEAST_MARKED)], TWO) == (Place(0, 3, 4),)
    assert marked([Evidence(Place(0, 3, 4), LEAST_MARKED - 0.1)], TWO) == ()
    assert marked([], TWO) == ()


@pytest.mark.parametrize(
    ("marked_text", "inner"),
    [
        ("**Greta Lund**", "Greta Lund"),
        ("`prune` |", "prune"),
        ("__init__", "__init__"),
        ("**", "**"),
    ],
)
def test_marks_of_markdown_are_no_part_of_a_span(marked_text: str, inner: str) -> None:
    text = f"By {marked_text} it was."
    at = text.index(inner)
    found = [Evidence(Place(0, 3, 3 + len(marked_text)), 1.0)]
    assert marked(found, [Passage(text)]) == (Place(0, at, at + len(inner)),)
