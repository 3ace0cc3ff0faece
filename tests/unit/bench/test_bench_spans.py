"""The measures of SQuAD, and what of an answer they are taken of."""

from __future__ import annotations

from typing import Any

import pytest

from bench.spans import Said, exact, holds, normalised, said, token_f1
from runtime.answers import NO_ANSWER


def source(text: str, *marked: str) -> dict[str, Any]:
    begins = [text.index(one) for one in marked]
    spans = [
        {"start": begin, "end": begin + len(one)} for begin, one in zip(begins, marked, strict=True)
    ]
    return {"text": text, "spans": spans}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  U.S. Army,", "us army"),
        ("a theatre in An\nHui", "theatre in hui"),
        ("1990s' end-of-year", "1990s endofyear"),
        ("The", ""),
    ],
)
def test_texts_are_normalised_as_squad_does(text: str, expected: str) -> None:
    assert normalised(text) == expected


def test_f1_is_that_of_the_best_answer() -> None:
    assert token_f1("the Roman Empire", ["Roman empire!", "Rome"]) == 1
    # One of two tokens is right, one of three is found: 2 * 1 / (2 + 3).
    assert token_f1("Roman roads", ["great Roman Empire"]) == pytest.approx(0.4)
    # A token counts as often as it stands in both.
    assert token_f1("no no no", ["no way"]) == pytest.approx(0.4)
    assert token_f1("", ["Rome"]) == token_f1("Paris", ["Rome"]) == token_f1("the", ["Rome"]) == 0


def test_an_answer_is_exact_or_stands_in_a_text_token_by_token() -> None:
    assert exact("The Rome.", ["rome"])
    assert not exact("Rome, Italy", ["Rome"])
    # Nothing was said, and of the answer nothing is left: that is not right.
    assert token_f1("", ["$"]) == 0
    assert not exact("", ["$"])
    assert holds("It fell in 476, in Rome.", ["Milan", "Rome"])
    assert not holds("It was romeo.", ["Rome"])
    assert not holds("Of the people.", ["The"])
    assert not holds("", ["Rome"])


def test_what_is_said_first_is_the_text_before_the_first_citation() -> None:
    answer = {
        "answer": "It fell in 476. [2] Nobody knew. [1]",
        "sources": [source("Nobody knew.", "Nobody"), source("Then it fell in 476.", "476")],
    }
    assert said(answer) == Said("It fell in 476.", "476")


def test_of_several_spans_the_one_in_the_sentence_counts() -> None:
    one = source("In 410 they came. It fell in 476.", "410", "476")
    assert said({"answer": "It fell in 476. [1]", "sources": [one]}).marked == "476"
    assert said({"answer": "Something else. [1]", "sources": [one]}).marked == "410"


def test_a_sentence_that_goes_on_in_another_passage_is_marked_there() -> None:
    sources = [source("It fell,"), source("they say, in 476. In 410 too.", "476", "410")]
    whole = {"answer": "It fell, they say, in 476. [1]", "sources": sources}
    assert said(whole).marked == "476"
    assert said({"answer": "It fell. [1]", "sources": sources}).marked is None


def test_spans_may_be_absent() -> None:
    bare = {"answer": "It fell. [1]", "sources": [{"text": "It fell."}]}
    assert said(bare) == Said("It fell.", None)
    assert said({"answer": "It fell. [1]", "sources": [source("It fell.")]}).marked is None


def test_a_number_that_names_no_source_is_no_citation() -> None:
    answer = {"answer": "See [12] and [12]. It fell. [1]", "sources": [source("It fell.", "fell")]}
    assert said(answer) == Said("See [12] and [12]. It fell.", "fell")
    assert said({"answer": "Freely told.", "sources": []}) == Said("Freely told.", None)


def test_no_answer_says_nothing() -> None:
    nothing = said({"answer": NO_ANSWER, "sources": [source("It fell.", "fell")]})
    assert nothing == Said("", None)
    assert not nothing.answered
