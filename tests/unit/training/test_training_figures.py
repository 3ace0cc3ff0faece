"""Figures of a reader, and the card they stand on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.deployables import ROOT
from support.training import paragraphs, tiny_reader

from encoders.reading import Span
from training.card import SQUAD, Card, faults, table, write_card
from training.examine import Found, examine
from training.squad import Paragraph, Question


@pytest.mark.parametrize(
    "sentence", ['It "fell." ', "Then, in 5.2 s, it rose. ", "3 days later it was gone"]
)
def test_the_sentence_of_a_span(sentence: str) -> None:
    passage = 'It "fell." Then, in 5.2 s, it rose. 3 days later it was gone'
    first = passage.index(sentence)
    last = first + len(sentence.rstrip())
    assert Found(passage, Span(first, last, 0.0)).sentence == sentence
    assert Found(passage, Span(last - 1, last, 0.0)).sentence == sentence


def test_a_reader_is_examined(tmp_path: Path) -> None:
    reader, made = tiny_reader(tmp_path), paragraphs(articles=3)
    found = examine(reader, made, questions=10, seed=1)
    assert found == examine(reader, made, questions=10, seed=1)
    assert found.questions == 10
    # One sentence a paragraph: whatever is marked is marked in the right one.
    assert found.sentences == 1
    shares = (found.f1, found.exact, found.auc_near, found.auc_far, found.answered)
    assert all(0 <= share <= 1 for share in shares)
    # A question of one's own data may have no answer: there is nothing to find.
    unanswered = Paragraph("Article 1", "It is here.", (Question("u", "Who lives there?", ()),))
    assert examine(reader, [*made, unanswered], questions=100).questions == len(made)
    with pytest.raises(ValueError, match="two articles"):
        examine(reader, paragraphs(articles=1))


def adapter(folder: Path, value: float = 1.0) -> Path:
    metadata = {"base": "a/base", "base_fingerprint": "0123456789abcdef", "kind": "reader"}
    path = folder / "reader.safetensors"
    save_file({"head.bias": np.full(2, value, np.float32)}, path, metadata)
    return path


CARD = Card(
    name="production-rag/reader",
    about="Reads.",
    licence="CC-BY-SA-4.0",
    data=[SQUAD],
    settings={"steps": "100"},
    losses=[4.0, 2.0],
    loss_steps=50,
    figures=[table("Read", ("figure", "value"), [("F1", "0.7")])],
    failures=["It cannot count."],
    command="python -m training reader",
)


def test_a_card_tells_what_it_is_told(tmp_path: Path) -> None:
    text = write_card(adapter(tmp_path), CARD).read_text()
    for told in (
        "# production-rag/reader", "a/base (Apache-2.0)", "`0123456789abcdef`", "Rajpurkar",
        "(https://creativecommons.org/licenses/by-sa/4.0/)", "| steps | 100 |",
        "| 1 to 50 | 4.000 |", "| 51 to 100 | 2.000 |", "| F1 | 0.7 |", "- It cannot count.",
        "python -m training reader",
    ):  # fmt: skip
        assert told in text, told


def test_a_card_is_of_one_file(tmp_path: Path) -> None:
    path = adapter(tmp_path)
    assert faults(tmp_path) == ["reader.safetensors has no card"]
    write_card(path, CARD)
    (tmp_path / "README.md").write_text("No card.")
    assert faults(tmp_path) == []
    adapter(tmp_path, value=2.0)
    assert faults(tmp_path) == ["reader.md is of another file than reader.safetensors"]
    path.unlink()
    assert faults(tmp_path) == ["reader.md is of no file"]


def test_shipped_adapters_are_those_of_their_cards() -> None:
    folder = ROOT / "encoders" / "trained"
    assert {path.stem for path in folder.glob("*.safetensors")} == {"reader", "reranker"}
    assert faults(folder) == []
