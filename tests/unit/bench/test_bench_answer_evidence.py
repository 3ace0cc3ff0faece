"""Fitting what relevance and spans decide, and the figures of a threshold and of marks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from bench.answer_cases import Case, Examiner, Groups, Retrieved, in_file, in_paragraph, search
from bench.answer_evidence import (
    REFUSED,
    Way,
    by_relevance,
    chosen_threshold,
    fit,
    lines,
    marks,
    with_reader,
)
from bench.answer_threshold import Asked
from encoders.reading import Read
from generator_worker.evidence import Evidence, Weights
from generator_worker.selection import Sentence
from generator_worker.sentences import Place

TEXTS = ("The tower is old.", "It has 324 metres.", "Towers have metres.")
ASKED = Asked("How tall is it?", frozenset({"tower"}), " ".join(TEXTS), ("324 metres",))
PLACES = (Place(0, 4, 9), Place(1, 7, 17))


def refused(cases: Sequence[Case], way: Way, threshold: float) -> float:
    """Share of the questions that get the no-answer sentence."""
    return float(np.mean([way(one).score < threshold for one in cases]))


def case(relevance: list[float], spans: list[float], *, found: bool) -> Case:
    """A sentence a passage; the last was not read."""
    evidence = [Evidence(place, span) for place, span in zip(PLACES, spans, strict=True)]
    return Case(
        ASKED,
        TEXTS,
        [Sentence(at, 0, text) for at, text in enumerate(TEXTS)],
        np.eye(3, dtype=np.float32),
        np.array(relevance, np.float32),
        [*evidence, None],
        found,
    )


def everything(cases: Groups[Case]) -> list[Case]:
    return [*cases.given, *cases.quiz, *cases.hidden, *cases.elsewhere]


@pytest.fixture
def cases() -> Groups[Case]:
    rng = np.random.default_rng(7)

    def drawn(relevance: float, span: float, *, found: bool) -> list[Case]:
        noise = rng.normal(size=(60, 2))
        return [
            case([relevance + 0.1 * a, relevance - 0.1, 0.5], [span - 8, span + 2 * b], found=found)
            for a, b in noise
        ]

    return Groups(
        given=drawn(0.7, 5, found=True),
        quiz=drawn(0.7, 3, found=True),
        hidden=drawn(0.6, -3, found=False),
        elsewhere=drawn(0.2, -6, found=False),
    )


def test_spans_decide_where_relevance_does_not(cases: Groups[Case]) -> None:
    weights = fit(everything(cases))
    assert weights.span > 0
    answer = with_reader(weights)
    assert refused(cases.given, answer, 0.5) < 0.1
    assert refused(cases.hidden, answer, 0.5) > 0.9
    # The sentence that holds the span, though another is more relevant.
    assert answer(cases.given[0]).sentences[0].text == TEXTS[1]
    assert by_relevance(cases.given[0]).sentences[0].text == TEXTS[0]


def test_figures_are_shares(cases: Groups[Case]) -> None:
    weights = fit(everything(cases))
    told, _, nothing_refused, all_refused = lines(cases, with_reader(weights), (0.0, 1.1))
    assert told.startswith("AUC: SQuAD 0.9") or told.startswith("AUC: SQuAD 1.0")
    assert nothing_refused.split("|")[1].split() == ["1.000"] * 3
    first, whole = map(float, nothing_refused.split("|")[2].split())
    assert 0.8 < first <= whole == 1
    assert nothing_refused.split("|")[3].split() == ["0.000"] * 2
    assert all_refused.split("|")[2].split() == ["-", "-"]


def test_what_stands_behind_and_never_answers_is_improbable_however_relevant(
    cases: Groups[Case],
) -> None:
    weights = fit(everything(cases))
    unread = weights.unread_bias + weights.unread_relevance * 0.5
    assert unread < -3


def test_the_threshold_refuses_what_it_must_of_that_which_nothing_answers_and_no_more(
    cases: Groups[Case],
) -> None:
    way = with_reader(fit(everything(cases)))
    threshold = chosen_threshold({5: cases, 20: cases}, way)
    assert threshold is not None
    assert refused(cases.hidden, way, threshold) >= REFUSED
    assert refused(cases.hidden, way, threshold - 0.01) < REFUSED
    always = with_reader(Weights(9, 0, 0, 9, 0))
    assert chosen_threshold({5: cases}, always) is None


def test_marks_are_right_where_they_share_most_with_an_answer(cases: Groups[Case]) -> None:
    _, *lines_ = marks(cases, with_reader(fit(everything(cases))), 0.0)
    bounds, counts, right = zip(*(line.split("|") for line in lines_), strict=True)
    assert (bounds[0].split()[0], bounds[-1].split()[1]) == ("-inf", "inf")
    answers, answerable = np.array([line.split() for line in counts], int).T
    assert (answers.sum(), answerable.sum()) == (120, 60)
    # The highest scores are of what is answered, the lowest of what is not.
    assert right[-2].split() == ["1.000", "1.000"]
    assert right[0].split() == ["-", "0.000"]


class Store:
    """Finds all it has, but for what a filter leaves out."""

    async def search(self, *, query: str, top_k: int, **how: Any) -> dict[str, Any]:
        assert how in ({}, {"filter": {"not": {"home": {"any": ["tower"]}}}})
        homes = ("tower", "bridge") if not how else ("bridge",)
        sources = [{"text": f"A {home}.", "metadata": {"home": home}} for home in homes]
        return {"sources": sources, "degraded": []}


async def test_the_article_of_a_question_is_left_out_by_a_filter() -> None:
    store: Any = Store()
    assert await search(store, [ASKED]) == [
        Retrieved(ASKED, ("A tower.", "A bridge."), ("tower", "bridge"))
    ]
    hidden = await search(store, [ASKED], article_left_out=True)
    assert hidden == [Retrieved(ASKED, ("A bridge.",), ("bridge",))]


def test_passages_answer_by_their_paragraph_or_their_file() -> None:
    assert in_paragraph(ASKED, TEXTS[1:], ())
    assert not in_paragraph(ASKED, ["It had 324 metres.", TEXTS[0]], ())
    assert in_file(ASKED, (), ("bridge", "tower"))
    assert not in_file(ASKED, (), ("bridge",))


class Counted:
    """Stands for either model; calls: what was embedded and read, and how often."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def encode(self, texts: list[str], input_type: str = "passage") -> np.ndarray:
        self.calls.update(texts)
        return np.ones((len(texts), 2), np.float32)

    def prepare(self, question: str, texts: list[str]) -> list[str]:
        return texts

    def read(self, rows: list[str]) -> list[Read]:
        self.calls.update(f"read {row}" for row in rows)
        logits = np.zeros(1, np.float32)
        return [Read(logits, logits, 0.0, np.array([[0, len(row)]])) for row in rows]


def test_all_is_embedded_and_read_once_and_eight_passages_are_read() -> None:
    model: Any = Counted()
    texts = tuple(f"Passage {at} has {at} metres." for at in range(20))
    found = Groups([], [], [Retrieved(ASKED, texts, texts)], [])
    examiner = Examiner(model, model)
    for passages in (5, 8, 20):
        (made,) = examiner.cases(found, passages).hidden
        assert len(made.sentences) == passages
        assert sum(one is not None for one in made.evidence) == min(8, passages)
    assert set(model.calls.values()) == {1}
    assert sum(call.startswith("read") for call in model.calls) == 8
