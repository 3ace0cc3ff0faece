"""What rerankers are asked in their training."""

from __future__ import annotations

import pytest
from support.training import paragraphs, pool_and_near

from training.queries import LIKE, STEP_QUERIES, Queries, keywords
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
