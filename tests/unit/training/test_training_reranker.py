"""The reranker's training: what it is asked, what it learns, and what it is examined by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support.training import paragraphs, pool_and_near, tiny_reranker

from encoders.late_interaction import max_sim as served_max_sim
from training.examine_reranker import examine_reranker
from training.loop import TOLD_EVERY, Schedule, train
from training.nearest import Indices, Pool
from training.queries import LIKE, STEP_QUERIES, Queries, keywords
from training.reranker import max_sim
from training.squad import Paragraph, Question

LONG = Paragraph(
    "Bridges",
    "The bridge of Brooklyn was opened in May of 1883 by the mayor. It crosses the East River "
    "between two boroughs of the city. Its towers are built of limestone and of granite.",
    (Question("q", "When was the bridge of Brooklyn opened?", ("1883",)),),
)


def test_the_same_step_has_the_same_queries_whichever_steps_were_asked_for_before() -> None:
    pool, near = pool_and_near(paragraphs(articles=10))
    queries = Queries(pool, near, seed=1)
    last = len(pool.asked) // STEP_QUERIES  # of the second pass
    assert [queries(last), queries(0)] == [Queries(pool, near, seed=1)(at) for at in (last, 0)]
    assert Queries(pool, near, seed=2)(0) != queries(0)


def test_a_pass_asks_each_question_once_and_never_shows_a_right_passage_as_wrong() -> None:
    pool, near = pool_and_near(paragraphs(articles=8))
    queries = Queries(pool, near, seed=1)
    asked = [row for step in range(len(pool.asked) // STEP_QUERIES) for row in queries(step)]
    assert sorted(row.paragraph for row in asked) == list(range(64))
    for row in asked:
        assert len(row.like) == LIKE
        assert row.passage == pool.texts[pool.first[row.paragraph]]
        (answer,) = pool.asked[row.paragraph][1].answers
        for paragraph, passage in row.like:
            assert paragraph != row.paragraph
            assert answer not in passage


def test_queries_come_in_all_styles() -> None:
    others = paragraphs(articles=8)
    pool, near = pool_and_near([LONG] * 64 + others)
    asked = [row for step in range(4) for row in Queries(pool, near, seed=1)(step)]
    of_bridges = [row for row in asked if row.paragraph < 64]
    questions = [row for row in of_bridges if row.query == LONG.questions[0].text]
    words = [row for row in of_bridges if row.query == "bridge Brooklyn opened"]
    sentences = [row for row in of_bridges if row not in questions and row not in words]
    assert questions
    assert words
    assert sentences
    assert all(row.query in LONG.text for row in sentences)
    assert any(row.query not in row.passage for row in sentences)


def test_questions_without_an_answer_are_not_asked() -> None:
    unanswered = Question("u", "Who lives there?", ())
    made = [
        Paragraph(one.article, one.text, (*one.questions, unanswered))
        for one in paragraphs(articles=8)
    ]
    queries = Queries(*pool_and_near(made), seed=1)
    asked = [row for step in range(64 // STEP_QUERIES) for row in queries(step)]
    assert sorted(row.paragraph for row in asked) == list(range(64))
    assert not any("lives" in row.query for row in asked)


def test_keywords_of_a_question_without_any_are_the_question() -> None:
    assert keywords("What is it?") == "What is it?"
    assert keywords("Who wrote the U.S. law of 1973?") == "wrote U.S law 1973"


def test_too_few_questions_are_refused() -> None:
    pool, near = pool_and_near(paragraphs(articles=1))
    with pytest.raises(ValueError, match=f"a step takes {STEP_QUERIES}"):
        Queries(pool, near, seed=1)


def test_scores_are_those_of_serving() -> None:
    torch.manual_seed(1)
    asked = torch.nn.functional.normalize(torch.randn(1, 5, 8), dim=-1)
    read = torch.nn.functional.normalize(torch.randn(3, 7, 8), dim=-1)
    content = torch.ones(3, 7)
    content[1, 4:] = 0
    content[:, 0] = 0
    scores = max_sim(asked, torch.ones(1, 5), read, content)[0].numpy()
    served = served_max_sim(
        asked[0].numpy(), np.ones(5, np.float32), read.numpy(), content.numpy().astype(bool)
    )
    assert np.allclose((1 + scores) / 2, served, atol=1e-6)


def test_a_token_without_weight_says_nothing() -> None:
    torch.manual_seed(1)
    asked, read, content = torch.randn(1, 2, 4), torch.randn(2, 3, 4), torch.ones(2, 3)
    first = max_sim(asked[:, :1], torch.ones(1, 1), read, content)
    assert torch.allclose(max_sim(asked, torch.tensor([[2.0, 0.0]]), read, content), first)


def test_a_short_training_run_improves_the_loss_and_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = paragraphs(articles=8)
    pool, near = pool_and_near(given)

    def nearest(pool: Pool, _: Path) -> Indices:
        return pool_and_near(list(pool.paragraphs))[1]

    monkeypatch.setattr("training.examine_reranker.nearest", nearest)
    reranker = tiny_reranker(tmp_path)
    before = examine_reranker(reranker, tuple(given), tmp_path, questions=16)
    queries = Queries(pool, near, seed=1)
    losses = train(
        reranker,
        lambda step: queries(step)[:4],
        Schedule(2 * TOLD_EVERY, 1e-2),
        tmp_path / "run",
        made_with={"seed": 1},
    )
    after = examine_reranker(reranker, tuple(given), tmp_path, questions=16)
    assert losses[-1] < 0.8 * losses[0]
    assert after.mrr > before.mrr
    assert before.found_mrr == after.found_mrr
