"""Words as weights."""

from __future__ import annotations

import pytest

from gateway.search.bm25 import QUESTION_K3, Encoder


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(k1=1.2, b=0.75, average_tokens=64, language="english")


def test_a_word_that_a_question_repeats_weighs_more_but_not_in_proportion(
    encoder: Encoder,
) -> None:
    weights = dict(zip(*encoder.question("retrieval systems: retrieval of retrieval"), strict=True))
    once, thrice = sorted(weights.values())
    assert once == pytest.approx(1)
    assert thrice == pytest.approx(3 * (QUESTION_K3 + 1) / (QUESTION_K3 + 3))


def test_question_and_passage_speak_of_the_same_terms(encoder: Encoder) -> None:
    question, _ = encoder.question("Which owners own it?")
    passage, _ = encoder.passage("The owner owns a value.")
    assert set(question) & set(passage)


@pytest.mark.parametrize("text", ["", "the of and", "..."])
def test_nothing_but_stop_words_is_nothing(encoder: Encoder, text: str) -> None:
    assert encoder.question(text) == ([], [])
    assert encoder.passage(text) == ([], [])
