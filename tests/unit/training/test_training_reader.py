"""Where answers are marked, and what a reader gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.training import tiny_reader

from training.examples import Row
from training.reader import mark, pair_tokenizer


def marked(row: Row, max_tokens: int = 64) -> tuple[list[str], list[str]]:
    """The tokens at which an answer begins, and ends."""
    encoding = pair_tokenizer(max_tokens).encode(row.question, row.passage)
    begins, ends = np.zeros((2, len(encoding)), np.bool_)
    mark(encoding, row, begins, ends)
    first, last = (
        [encoding.tokens[at] for at in np.flatnonzero(flags)] for flags in (begins, ends)
    )
    return first, last


def test_an_answer_is_marked_at_its_first_and_last_token() -> None:
    row = Row("Who?", "It was Marie Curie who won.", ("Marie Curie",))
    begins, ends = marked(row)
    assert begins == ["marie"]
    assert ends[0].endswith("curie"[-2:])
    assert len(ends) == 1


def test_every_place_of_every_answer_is_marked() -> None:
    row = Row("Which?", "Rome and Oslo and Rome.", ("Rome", "Oslo"))
    assert marked(row) == (["rome", "oslo", "rome"], ["rome", "oslo", "rome"])


def test_nothing_is_marked_in_the_question() -> None:
    assert marked(Row("Is Rome old?", "Oslo is.", ("Rome",))) == (["[CLS]"], ["[CLS]"])


def test_without_an_answer_the_first_token_is_marked() -> None:
    assert marked(Row("Which?", "Rome.", ())) == (["[CLS]"], ["[CLS]"])


def test_an_answer_that_is_cut_off_is_none() -> None:
    row = Row("Which?", "word " * 80 + "Rome", ("Rome",))
    assert marked(row) == (["[CLS]"], ["[CLS]"])
    # An answer cut in two is none either; another place of it counts.
    half = Row("Which?", "long " + "word " * 58 + "new york city", ("long", "new york city"))
    assert marked(half) == (["long"], ["long"])


def test_marks_are_by_characters_not_bytes() -> None:
    row = Row("¿Qué?", "東京 🦀 naïveté Größe costs 5 € a day.", ("Größe", "5 €"))
    begins, ends = marked(row)
    assert begins[1:] == ["5"]
    assert ends[1:] == ["€"]
    assert "große".startswith(begins[0]) or "grosse".startswith(begins[0])


def test_logits_of_question_and_padding_are_out(tmp_path: Path) -> None:
    reader = tiny_reader(tmp_path)
    encodings = reader.encode([("Who is it?", "It is she."), ("Who?", "A much longer passage is.")])
    logits = reader(encodings)
    assert logits.shape == (2, max(map(len, encodings)), 2)
    assert logits.dtype == torch.float32
    for row, encoding in zip(logits, encodings, strict=True):
        passage = torch.zeros(len(row), dtype=torch.bool)
        passage[: len(encoding)] = torch.tensor(encoding.type_ids) == 1
        passage[0] = True
        assert (row[~passage] == -1e4).all()
        assert (row[passage].abs() < 100).all()


def test_rows_do_not_change_one_another(tmp_path: Path) -> None:
    reader = tiny_reader(tmp_path)
    short, long = Row("Who?", "It is she.", ("she",)), Row("Who?", "word " * 40 + "she", ("she",))
    both = reader.loss([short, long])
    alone = (reader.loss([short]) + reader.loss([long])) / 2
    assert both.item() == pytest.approx(alone.item(), rel=0.02)  # bfloat16


def test_several_places_are_one_event(tmp_path: Path) -> None:
    """-log(p1 + p2) for begin and end: with two places less than with either."""
    reader = tiny_reader(tmp_path)
    passage = "Rome and Oslo."
    two, one, other = (
        reader.loss([Row("Which?", passage, answers)]).item()
        for answers in (("Rome", "Oslo"), ("Rome",), ("Oslo",))
    )
    assert two < min(one, other)
