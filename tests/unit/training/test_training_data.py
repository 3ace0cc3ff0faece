"""What is trained on: articles that are held out, bounded batches, passages that do not answer."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.training import paragraphs, pool_and_near

from training.batches import batches
from training.examples import STEP_TOKENS, Examples, answers, rows
from training.nearest import NEAREST, nearest, pool_of
from training.squad import Paragraph, Question, parts, read_paragraphs, split


def test_held_out_articles_are_disjoint_and_the_same_in_any_order() -> None:
    made = paragraphs(articles=75, each=2)
    random.Random(3).shuffle(made)
    found = split(made)
    sides = [found.training, found.calibration, found.indexed, found.absent]
    titles = [{paragraph.article for paragraph in side} for side in sides]
    assert [len(side) for side in titles] == [15, 20, 30, 10]
    assert len(set.union(*titles)) == 75
    assert sum(map(len, sides)) == len(made)
    again = split(reversed(made))
    assert {paragraph.article for paragraph in again.calibration} == titles[1]
    assert {paragraph.article for paragraph in again.indexed} == titles[2]


def test_too_few_articles_are_refused() -> None:
    with pytest.raises(ValueError, match="60 articles are too few"):
        split(paragraphs(articles=60, each=1))


def squad(articles: int) -> dict[str, object]:
    answered = {"id": "q", "question": " Who? ", "answers": [{"text": "she"}, {"text": "she"}]}
    return {
        "data": [
            {
                "title": str(at),
                "paragraphs": [
                    {"context": " ", "qas": []},
                    {"context": "It is she.", "qas": [answered]},
                ],
            }
            for at in range(articles)
        ]
    }


def test_squad_is_read(tmp_path: Path) -> None:
    text = json.dumps(squad(61))
    (tmp_path / "mine.json").write_text(text)
    (tmp_path / "squad").mkdir()
    with gzip.open(tmp_path / "squad" / "train-v1.1.json.gz", "wt") as file:
        file.write(text)
    read = list(read_paragraphs(tmp_path / "mine.json"))
    assert read[0] == Paragraph("0", "It is she.", (Question("q", "Who?", ("she",)),))
    assert parts(tmp_path) == split(read)


@pytest.mark.parametrize(
    "text",
    ["[]", '{"data": [{"paragraphs": []}, {}]}', '{"data": {}} more', '{"data": [{"a": 1}]}'],
)
def test_another_format_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(ValueError, match="SQuAD's format|Extra data"):
        list(read_paragraphs(tmp_path / "mine.json"))


@given(st.lists(st.integers(1, 300), max_size=200), st.integers(0, 5))
def test_batches_hold_every_row_once_within_their_bound(lengths: list[int], seed: int) -> None:
    made = batches(lengths, 256, random.Random(seed))
    assert sorted(row for batch in made for row in batch) == list(range(len(lengths)))
    for batch in made:
        padded = len(batch) * max(lengths[row] for row in batch)
        assert padded <= 256 or len(batch) == 1
    assert made == batches(lengths, 256, random.Random(seed))


def test_every_question_is_a_row_and_most_are_answered() -> None:
    pool, near = pool_and_near(paragraphs(articles=20))
    made = rows(pool, near, random.Random(1))
    assert [row.question for row in made] == [question.text for _, question in pool.asked]
    answered = [row for row in made if row.answers]
    assert 0.6 < len(answered) / len(made) < 0.84
    assert all(any(answer in row.passage for answer in row.answers) for row in answered)
    for row, (_, question) in zip(made, pool.asked, strict=True):
        assert row.answers or not answers(question, row.passage)


def test_a_question_that_every_passage_answers_is_asked_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training.examples._DRAWS", 50)
    asked = Question("q", "Which letter?", ("e",))
    made = [Paragraph("a", "Every tree here.", (asked,)), Paragraph("b", "Green leaves.", ())]
    pool, near = pool_and_near(made)
    for seed in range(10):
        (row,) = rows(pool, near, random.Random(seed))
        assert (row.passage, row.answers) == ("Every tree here.", ("e",))


def test_examples_are_the_same_from_any_step_on_and_change_with_each_pass() -> None:
    pool, near = pool_and_near(paragraphs(articles=40))
    whole = Examples(pool, near, seed=1)
    steps = [whole(step) for step in range(8)]
    for begin in (3, 7):
        later = Examples(pool, near, seed=1)
        assert [later(step) for step in range(begin, 8)] == steps[begin:]
    assert steps[0] != steps[4]
    assert all(
        len(batch) * max(len(row.question) + len(row.passage) for row in batch) <= 5 * STEP_TOKENS
        for batch in steps
    )
    assert [Examples(pool, near, seed=2)(0)] != [steps[0]]


def test_there_must_be_a_question() -> None:
    pool = pool_of([Paragraph("a", "Nothing is asked.", ())])
    with pytest.raises(ValueError, match="no question"):
        Examples(pool, np.zeros((0, 1), np.int32), seed=1)


class Letters:
    """In place of the base: texts are alike that begin with the same letters as often."""

    streams = 2

    def encode(self, texts: list[str], input_type: str) -> NDArray[np.float32]:
        """One dimension a letter of the first word."""
        first = [text.split()[0].lower() for text in texts]
        made = [[word.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"] for word in first]
        vectors = np.array(made, np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def close(self) -> None:
        """Nothing is held."""


def named(*words: str, answer: str = "x") -> list[Paragraph]:
    """A paragraph of each word, and a question that begins with it."""
    return [
        Paragraph(word, f"{word} is x.", (Question(word, f"{word} is what?", (answer,)),))
        for word in words
    ]


def test_the_nearest_passages_are_kept_with_what_they_are_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.nearest.load_embedding_model", lambda *_: Letters())
    path = tmp_path / "nearest.npz"
    pool = pool_of(named("Rome", "Oslo", "Romeo"))
    found = nearest(pool, path)
    assert found.dtype == np.int32
    assert found.tolist() == [[0, 2, 1], [1, 2, 0], [2, 0, 1]]
    assert [file.name for file in tmp_path.iterdir()] == ["nearest.npz"]
    monkeypatch.delattr("training.nearest.load_embedding_model")  # not made again
    assert nearest(pool, path).tolist() == found.tolist()
    for others in (
        named("Rome", "Oslo"), named("Rome", "Oslo", "Remeo"),
        named("Rome", "Oslo", "Romeo", answer="is"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="other data"):
            nearest(pool_of(others), path)


def test_of_many_passages_the_nearest_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.nearest.load_embedding_model", lambda *_: Letters())
    words = [f"{first}{second}" for first in "abcdefgh" for second in "stuvwxyz"]
    found = nearest(pool_of(named(*words)), tmp_path / "nearest.npz")
    assert found.shape == (64, NEAREST)
    # Itself, and then the fourteen that share a letter.
    for at, row in enumerate(found):
        assert row[0] == at
        assert all(set(words[other]) & set(words[at]) for other in row[1:15])
