"""Questions with what the running system finds for them, read: what an answer is chosen from.

Passages come through POST /search, reranked, of a system that holds one collection and nothing
else; sentences are embedded and passages read once, in this process, whatever number of passages
is looked at then. A question's first five are what a /query with `top_k` 5 gets, but where
PASSAGES_PER_DOCUMENT leaves fewer than the most.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import uvloop

from bench import system
from bench.answer_threshold import SEED, Asked, SentenceVectors, embed
from bench.api import Api, connected
from bench.concurrency import in_flight
from bench.datasets import Document, rust_book, rust_quiz
from bench.retrieval import PATIENT, QUESTIONS_AT_ONCE, whole
from encoders.embedding import EmbeddingModel
from encoders.reading import PassageReader, Read
from generator_worker.engines.base import Passage
from generator_worker.engines.extractive import read_sentences
from generator_worker.evidence import MOST_PASSAGES_READ, Evidence, find_evidence
from generator_worker.selection import Sentence, Vectors, relevance
from generator_worker.sentences import words
from training.squad import Paragraph, parts

# Passages an answer is made from: the default, as many as are read, and some beyond.
PASSAGES: Final = (5, 8, 20)
T = TypeVar("T")
# Whether passages (texts, homes) answer a question.
Answers = Callable[[Asked, Sequence[str], Sequence[str]], bool]


@dataclass(frozen=True, slots=True)
class Retrieved:
    """texts: the passages found, best first; homes: the article or file of each."""

    asked: Asked
    texts: tuple[str, ...]
    homes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Case:
    """A question with the sentences of its passages; found: whether they should answer it."""

    asked: Asked
    texts: tuple[str, ...]
    sentences: list[Sentence]
    vectors: Vectors
    relevance: Vectors
    evidence: list[Evidence | None]
    found: bool


@dataclass(frozen=True, slots=True)
class Groups(Generic[T]):
    """Answerable: given (SQuAD), quiz. Not: hidden (article left out), elsewhere."""

    given: list[T]
    quiz: list[T]
    hidden: list[T]
    elsewhere: list[T]


def retrieve(data: Path, questions: int, settings: dict[str, str]) -> Groups[Retrieved]:
    """Questions about SQuAD's calibration articles and the quiz, at most so many of each, asked
    of held-out articles and of the Rust book; of `given` and `quiz` also what was not found.

    settings: of the system, such as EMBEDDING_MODEL.
    """
    squad_parts = parts(data)
    calibration = squad_parts.calibration
    every = [
        Asked(question.text, frozenset({one.article}), one.text, question.answers)
        for one in calibration
        for question in one.questions
    ]
    squad = random.Random(SEED).sample(every, min(questions, len(every)))
    quiz = [Asked(q.text, frozenset(q.grades)) for q in rust_quiz(data).questions][:questions]

    async def of_squad(api: Api) -> list[list[Retrieved]]:
        # What bench/reading.py asks about is in the way here, as these are there: the more is
        # indexed, the more looks like an answer.
        await api.index_all(articles([*calibration, *squad_parts.indexed]))
        return [
            await search(api, squad),
            await search(api, squad, article_left_out=True),
            await search(api, quiz),
        ]

    async def of_book(api: Api) -> list[list[Retrieved]]:
        await api.index_all([Document(d.id, d.text, {"home": d.id}) for d in rust_book(data)])
        # Half of them say enough: these are the easiest to refuse.
        return [await search(api, quiz), await search(api, squad[::2])]

    given, hidden, quiz_of_squad = asked_of_system(of_squad, settings)
    quiz_given, squad_of_book = asked_of_system(of_book, settings)
    return Groups(given, quiz_given, hidden, [*squad_of_book, *quiz_of_squad])


def asked_of_system(ask: Callable[[Api], Any], settings: dict[str, str]) -> Any:
    """What `ask` gets of a system of its own."""

    async def connect(url: str) -> Any:
        async with connected(url) as api:
            return await ask(api)

    with system.running(PATIENT | settings) as running:
        return uvloop.run(connect(running.url))


def articles(paragraphs: Sequence[Paragraph]) -> list[Document]:
    """A document a paragraph, which knows its article."""
    return [
        Document(str(at), paragraph.text, {"home": paragraph.article})
        for at, paragraph in enumerate(paragraphs)
    ]


async def search(
    api: Api, questions: Sequence[Asked], *, article_left_out: bool = False
) -> list[Retrieved]:
    """What is found for each question."""

    async def one(asked: Asked) -> Retrieved:
        own = {"home": {"any": sorted(asked.home)}}
        where = {"filter": {"not": own}} if article_left_out else {}
        answer = await api.search(query=asked.text, top_k=max(PASSAGES), **where)
        sources = whole(answer, repr(asked.text))["sources"]
        return Retrieved(
            asked,
            tuple(source["text"] for source in sources),
            tuple(source["metadata"]["home"] for source in sources),
        )

    return await in_flight(one, questions, QUESTIONS_AT_ONCE)


class Examiner:
    """Makes cases; embeds each sentence and reads each passage for its question once."""

    def __init__(self, model: EmbeddingModel, reader: PassageReader) -> None:
        self._model = model
        self._reader = reader
        self._sentences = SentenceVectors(model)
        self._reads: dict[tuple[str, str], Read] = {}
        self._asked: dict[str, Vectors] = {}

    def cases(self, found: Groups[Retrieved], passages: int) -> Groups[Case]:
        """One of each question, with its first `passages` passages."""
        given = self._cases(found.given, passages, in_paragraph)
        quiz = self._cases(found.quiz, passages, in_file)
        return Groups(
            given=[case for case in given if case.found],
            quiz=[case for case in quiz if case.found],
            hidden=self._cases(found.hidden, passages, nowhere),
            elsewhere=self._cases(found.elsewhere, passages, nowhere),
        )

    def _cases(self, retrieved: Sequence[Retrieved], passages: int, answers: Answers) -> list[Case]:
        new = {one.asked.text: one.asked for one in retrieved if one.asked.text not in self._asked}
        if new:
            vectors = embed(self._model, [*new.values()])
            self._asked.update((asked.text, vector) for asked, vector in vectors)
        return [self._case(one, passages, answers) for one in retrieved]

    def _case(self, one: Retrieved, passages: int, answers: Answers) -> Case:
        asked, texts = one.asked, one.texts[:passages]
        sentences = read_sentences([Passage(text) for text in texts])
        found = answers(asked, texts, one.homes[:passages])
        if not sentences:
            none = self._asked[asked.text][:0]
            return Case(asked, texts, [], none[:, None], none, [], found)
        vectors = self._sentences.of([sentence.text for sentence in sentences])
        scores = relevance(asked.text, self._asked[asked.text], sentences, vectors)
        reads = self._read(asked.text, texts[:MOST_PASSAGES_READ])
        evidence = find_evidence(sentences, reads)
        return Case(asked, texts, sentences, vectors, scores, evidence, found)

    def _read(self, question: str, texts: Sequence[str]) -> list[Read]:
        new = [text for text in dict.fromkeys(texts) if (question, text) not in self._reads]
        if new:
            reads = self._reader.read(self._reader.prepare(question, new))
            self._reads.update(
                ((question, text), read) for text, read in zip(new, reads, strict=True)
            )
        return [self._reads[question, text] for text in texts]


def in_paragraph(one: Asked, texts: Sequence[str], homes: Sequence[str]) -> bool:
    """Whether a passage of the question's paragraph holds the answer."""
    return any(text in one.gold and holds(one, text) for text in texts)


def in_file(one: Asked, texts: Sequence[str], homes: Sequence[str]) -> bool:
    """Whether a passage comes from where people say the answer stands."""
    return any(home in one.home for home in homes)


def nowhere(one: Asked, texts: Sequence[str], homes: Sequence[str]) -> bool:
    """It is known that none answers."""
    return False


def holds(asked: Asked, text: str) -> bool:
    """Whether an official answer stands in the text, word for word."""
    said = f" {' '.join(words(text))} "
    return any(f" {' '.join(words(answer))} " in said for answer in asked.answers)
