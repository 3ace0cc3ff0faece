"""The reader as a reranker: what it makes of passages, and as a row among the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.adapters import tiny_adapter
from support.models import TEXTS, tiny_encoder

from bench import cross_encoder, reranked
from bench.candidates import Candidates
from bench.cross_encoder import passage_scores
from bench.options import Options
from bench.reranked import CROSS_ENCODER, Scored, fused
from encoders.options import Runtime
from encoders.reading import Read, best_span, load_passage_reader
from reranker_worker.settings import RerankerSettings

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def candidates(query: str, *passages: str) -> Candidates:
    documents = tuple(map(str, range(len(passages))))
    return Candidates(query, {"1": 1}, passages, documents, ())


ASKED = {
    "one": [candidates("How does Rust ensure memory safety?", *TEXTS[:4], "", TEXTS[4])],
    "two": [candidates("What is a?", *TEXTS[:2]), candidates("What governs memory?", *TEXTS[1:4])],
}


def read(score: float, tokens: int = 1) -> Read:
    """Of a passage in which every span scores so."""
    half = np.full(tokens, score / 2 + 1, np.float32)
    return Read(half, half, 2.0, np.array([(0, 1)] * tokens, np.int64).reshape(-1, 2))


def test_a_passage_scores_what_its_best_span_does_against_nothing() -> None:
    better_late = Read(
        np.array([1, 4, 0], np.float32),
        np.array([1, 0, 3], np.float32),
        2.5,
        np.array([(0, 2), (3, 5), (6, 8)], np.int64),
    )
    assert passage_scores(["ab cd ef", "x"], [better_late, read(-3)]) == [4 + 3 - 2.5, -3]


def test_what_has_no_token_is_never_better_than_another_passage() -> None:
    assert passage_scores(["a", "", "b"], [read(4), read(0, tokens=0), read(-9)]) == [4, -9, -9]
    assert passage_scores(["", ""], [read(0, tokens=0)] * 2) == [0, 0]


def test_every_question_gets_the_scores_of_its_own_passages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = str(tiny_adapter(tmp_path / "tiny.safetensors", tiny_encoder(tmp_path), "reader"))
    monkeypatch.setattr(cross_encoder, "READER", adapter)
    monkeypatch.setenv("EMBEDDING_BACKEND", "torch")
    monkeypatch.setenv("EMBEDDING_PRECISION", "fp32")
    found = reranked.score_by_reader(ASKED)
    reader = load_passage_reader(adapter, Runtime("torch", "fp32"))
    assert list(found) == ["one", "two"]
    for name, questions in ASKED.items():
        assert found[name].seconds > 0
        for one, scores in zip(questions, found[name].scores, strict=True):
            spans = [
                best_span(reader.read(reader.prepare(one.query, [text]))[0], 0, len(text))
                for text in one.passages
            ]
            known = [(at, span.score) for at, span in enumerate(spans) if span is not None]
            assert [scores[at] for at, _ in known] == pytest.approx(
                [score for _, score in known], abs=1e-3
            )
            assert len({round(score, 2) for _, score in known}) == len(known)
            nothing = [scores[at] for at, span in enumerate(spans) if span is None]
            assert nothing == [min(scores)] * one.passages.count("")
    reader.close()


@pytest.mark.parametrize("named", [(), ("a/model",)])
def test_it_is_among_the_usual_candidates_but_not_where_others_are_named(
    named: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = candidates("q", "a", "bc")
    scored = Scored([[0.1, 0.9]], 0.03)
    monkeypatch.setattr(reranked, "retrieve", lambda *_: [asked])
    monkeypatch.setattr(reranked, "score", lambda _, sets: dict.fromkeys(sets, scored))
    monkeypatch.setattr(reranked, "score_by_reader", lambda sets: dict.fromkeys(sets, scored))
    made = reranked.run(Options(tmp_path, quick=True, rerankers=named))
    usual = reranked.usual(RerankerSettings(_env_file=None).reranker_model)
    models = named or (*usual, CROSS_ENCODER)
    costs = {"cacm": pytest.approx(30), "wikiqa": pytest.approx(30)}
    assert made.figures["cost_ms"] == dict.fromkeys(models, costs)
    assert {*models, *map(fused, models)} < set(made.figures["gap_closed"])
    assert (CROSS_ENCODER in made.text()) == (not named)
    assert "cacm: 2 × 2" in made.text()  # 1.5 characters
