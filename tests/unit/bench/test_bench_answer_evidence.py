"""Fitting what relevance and spans decide, and the figures of a threshold."""

from __future__ import annotations

import numpy as np
import pytest

from bench.answer_evidence import Case, Cases, by_relevance, fit, lines, with_reader
from bench.answer_threshold import Asked
from generator_worker.evidence import Evidence
from generator_worker.selection import Sentence
from generator_worker.sentences import Place

TEXTS = ("The tower is old.", "It has 324 metres.")


def case(relevance: list[float], spans: list[float], *, found: bool) -> Case:
    return Case(
        Asked("How tall is it?", frozenset({"tower"}), " ".join(TEXTS), ("324 metres",)),
        [Sentence(0, at, text) for at, text in enumerate(TEXTS)],
        np.eye(2, dtype=np.float32),
        np.array(relevance, np.float32),
        [Evidence(Place(0, 0, 1), span) for span in spans],
        found,
    )


@pytest.fixture
def cases() -> Cases:
    rng = np.random.default_rng(7)

    def drawn(relevance: float, span: float, *, found: bool) -> list[Case]:
        noise = rng.normal(size=(60, 2))
        return [
            case([relevance + 0.1 * a, relevance - 0.1], [span - 8, span + 2 * b], found=found)
            for a, b in noise
        ]

    return Cases(
        given=drawn(0.7, 5, found=True),
        quiz=drawn(0.7, 3, found=True),
        hidden=drawn(0.6, -3, found=False),
        elsewhere=drawn(0.2, -6, found=False),
    )


def test_spans_decide_where_relevance_does_not(cases: Cases) -> None:
    weights = fit([*cases.given, *cases.quiz], [*cases.hidden, *cases.elsewhere])
    assert weights.span > 0
    answer = with_reader(weights)
    answered = [answer(one)[0] > 0.5 for one in cases.given]
    refused = [answer(one)[0] < 0.5 for one in cases.hidden]
    assert min(np.mean(answered), np.mean(refused)) > 0.9
    # The sentence that holds the span, though another is more relevant.
    assert answer(cases.given[0])[1][0].text == TEXTS[1]
    assert by_relevance(cases.given[0])[1][0].text == TEXTS[0]


def test_figures_are_shares(cases: Cases) -> None:
    weights = fit([*cases.given, *cases.quiz], [*cases.hidden, *cases.elsewhere])
    told, _, nothing_refused, all_refused = lines(cases, with_reader(weights), (0.0, 1.1))
    assert told.startswith("AUC: SQuAD 0.9") or told.startswith("AUC: SQuAD 1.0")
    assert nothing_refused.split("|")[1].split() == ["1.000"] * 3
    first, whole = map(float, nothing_refused.split("|")[2].split())
    assert 0.8 < first <= whole == 1
    assert nothing_refused.split("|")[3].split() == ["0.000"] * 2
    assert all_refused.split("|")[2].split() == ["-", "-"]
