"""How a reader's spans and a sentence's relevance decide together what answers.

    python -m bench.answer_evidence [--reader NAME] [--model NAME] [--questions 500]

Fits `generator_worker.evidence.WEIGHTS` and shows what each READER_THRESHOLD does. Each
question gets the five passages nearest to it by the embedding model, from a collection that
answers it and from one that cannot:

- answerable: questions about SQuAD's calibration articles, which no adapter was trained on, with
  a passage that holds the answer among the five; quiz questions of the Rust book with a passage
  of their chapter among the five;
- unanswerable: the same SQuAD questions with their own article left out, SQuAD questions asked of
  the Rust book, quiz questions asked of SQuAD.

Of each question the best sentence, by the weights so far, gives relevance and span score; where
people marked the answer, the best three do, and those of them answer that hold it. The weights
that tell best which answer are fitted to these, and the best sentences chosen anew, ROUNDS times.
Were only questions told apart, relevance would decide alone: the article that is asked about is
easier to know than the sentence. Sentences that answer count as much as the others together.
Seeded. Reads BENCH_DATA (default ../shared/data).
"""

from __future__ import annotations

import argparse
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from bench.answer_threshold import (
    SEED,
    TOP_K,
    Asked,
    Corpus,
    Mask,
    embed,
    open_corpus,
    rust,
)
from bench.datasets import data_folder
from bench.logistic import logistic_regression
from bench.stats import auc
from encoders.embedding import EmbeddingModel, load_embedding_model
from encoders.reading import PassageReader, Read, Reading, load_passage_reader
from generator_worker.engines.base import Passage
from generator_worker.engines.extractive import read_sentences
from generator_worker.evidence import (
    WEIGHTS,
    Evidence,
    Weights,
    find_evidence,
    probabilities,
)
from generator_worker.selection import Sentence, Vectors, choose, opening_worth, relevance
from generator_worker.sentences import words
from training.squad import parts, passages

ROUNDS: Final = 6
MOST_SENTENCES: Final = 4
# Sentences of a question that teach which of them answers.
RANKED: Final = 3
# Below what any span scores.
NOT_READ: Final = -100.0
THRESHOLDS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# What ANSWER_THRESHOLD is without a reader, for comparison.
WITHOUT_READER: Final = 0.55

Way = Callable[["Case"], tuple[float, Sequence[Sentence]]]


@dataclass(frozen=True)
class Case:
    """A question with the sentences of its passages; found: whether they should answer it."""

    asked: Asked
    sentences: list[Sentence]
    vectors: Vectors
    relevance: Vectors
    evidence: list[Evidence | None]
    found: bool


@dataclass(frozen=True)
class Cases:
    """Answerable: given (SQuAD), quiz. Not: hidden (article left out), elsewhere."""

    given: list[Case]
    quiz: list[Case]
    hidden: list[Case]
    elsewhere: list[Case]


def fit(answerable: Sequence[Case], others: Sequence[Case]) -> Weights:
    """The weights that tell best which of the best sentences answer."""
    cases = [*answerable, *others]
    weights = WEIGHTS
    for _ in range(ROUNDS):
        bias, of_relevance, of_span = _fitted(cases, weights, features=2)
        weights = Weights(bias, of_relevance, of_span, 0.0, 0.0)
    alone = _fitted(cases, Weights(0.0, 1.0, 0.0, 0.0, 0.0), features=1)
    return Weights(bias, of_relevance, of_span, *alone)


def _fitted(cases: Sequence[Case], weights: Weights, features: int) -> list[float]:
    rows = np.array([row for case in cases for row in _rows(case, weights)], np.float64)
    labels = rows[:, 2] > 0
    # Those that answer count as much as those that do not.
    counts = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum()) * len(rows)
    return [float(one) for one in logistic_regression(rows[:, :features], labels, counts)]


def _rows(case: Case, weights: Weights) -> Iterator[tuple[float, float, bool]]:
    """Relevance, span score, and whether it answers: of the sentence that is most likely to;
    where people marked what answers, of the next ones too."""
    spans = np.array([NOT_READ if one is None else one.score for one in case.evidence])
    order = np.argsort(-(weights.relevance * case.relevance + weights.span * spans))
    for at in order[: RANKED if case.found and case.asked.answers else 1]:
        known = not case.asked.answers or holds(case.asked, case.sentences[at].text)
        yield float(case.relevance[at]), float(spans[at]), case.found and known


def with_reader(weights: Weights) -> Way:
    """Best probability of a case, and the sentences were the threshold to let them pass."""

    def answer(case: Case) -> tuple[float, Sequence[Sentence]]:
        if not case.sentences:
            return 0.0, ()
        scores = probabilities(case.relevance, case.evidence, weights)
        chosen = choose(case.sentences, scores, case.vectors, most=MOST_SENTENCES, threshold=-2)
        return chosen.best_score, chosen.sentences

    return answer


def by_relevance(case: Case) -> tuple[float, Sequence[Sentence]]:
    """As `with_reader`, by the engine without one."""
    if not case.sentences:
        return -1.0, ()
    chosen = choose(
        case.sentences,
        case.relevance,
        case.vectors,
        most=MOST_SENTENCES,
        threshold=-2,
        opening=opening_worth(case.asked.text, case.sentences),
    )
    return chosen.best_score, chosen.sentences


def holds(asked: Asked, text: str) -> bool:
    """Whether an official answer stands in the text, word for word."""
    said = f" {' '.join(words(text))} "
    return any(f" {' '.join(words(answer))} " in said for answer in asked.answers)


class Examiner:
    """Questions with their passages, read."""

    def __init__(self, model: EmbeddingModel, reader: PassageReader) -> None:
        self._model = model
        self._reader = reader

    def cases(
        self,
        corpus: Corpus,
        asked: Sequence[tuple[Asked, Vectors]],
        answers: Callable[[Asked, Sequence[str], Sequence[str]], bool],
        allowed: Callable[[Asked], Mask] | None = None,
    ) -> list[Case]:
        """One of each question. answers: whether passages (texts, homes) answer a question."""
        return [self._case(corpus, one, vector, answers, allowed) for one, vector in asked]

    def _case(
        self,
        corpus: Corpus,
        asked: Asked,
        vector: Vectors,
        answers: Callable[[Asked, Sequence[str], Sequence[str]], bool],
        allowed: Callable[[Asked], Mask] | None,
    ) -> Case:
        similarity = corpus.vectors @ vector
        if allowed is not None:
            similarity = np.where(allowed(asked), similarity, -np.inf)
        nearest = np.argsort(-similarity, kind="stable")[:TOP_K]
        texts = [corpus.texts[at] for at in nearest]
        found = answers(asked, texts, [str(corpus.homes[at]) for at in nearest])
        sentences = read_sentences([Passage(text) for text in texts])
        if not sentences:
            return Case(asked, [], np.empty((0, 0), np.float32), np.empty(0, np.float32), [], found)
        vectors = corpus.sentences.of([sentence.text for sentence in sentences])
        return Case(
            asked,
            sentences,
            vectors,
            relevance(asked.text, vector, sentences, vectors),
            find_evidence(sentences, self._read(asked.text, texts)),
            found,
        )

    def _read(self, question: str, texts: Sequence[str]) -> list[Read]:
        rows: list[Reading] = self._reader.prepare(question, texts)
        return self._reader.read(rows)


def examine(model: EmbeddingModel, reader: PassageReader, data: Path, questions: int) -> Cases:
    """Every case."""
    calibration = parts(data).calibration
    cut = [(one.article, text) for one in calibration for text in passages(one)]
    every = [
        Asked(question.text, frozenset({one.article}), one.text, question.answers)
        for one in calibration
        for question in one.questions
    ]
    chosen = random.Random(SEED).sample(every, min(questions, len(every)))
    rust_passages, quiz = rust(data)
    squad_corpus, rust_corpus = open_corpus(model, cut), open_corpus(model, rust_passages)
    asked, asked_quiz = embed(model, chosen), embed(model, quiz)
    examiner = Examiner(model, reader)

    def in_paragraph(one: Asked, texts: Sequence[str], homes: Sequence[str]) -> bool:
        return any(text in one.gold and holds(one, text) for text in texts)

    def in_chapter(one: Asked, texts: Sequence[str], homes: Sequence[str]) -> bool:
        return any(home in one.home for home in homes)

    def never(one: Asked, texts: Sequence[str], homes: Sequence[str]) -> bool:
        return False

    def others(one: Asked) -> Mask:
        return ~np.isin(squad_corpus.homes, list(one.home))

    return Cases(
        given=[c for c in examiner.cases(squad_corpus, asked, in_paragraph) if c.found],
        quiz=[c for c in examiner.cases(rust_corpus, asked_quiz, in_chapter) if c.found],
        hidden=examiner.cases(squad_corpus, asked, never, others),
        elsewhere=[
            *examiner.cases(rust_corpus, asked, never),
            *examiner.cases(squad_corpus, asked_quiz, never),
        ],
    )


def lines(cases: Cases, way: Way, thresholds: Sequence[float]) -> Iterator[str]:
    """The figures of one way to answer."""
    given, quiz, hidden, elsewhere = (
        [way(case) for case in of]
        for of in (cases.given, cases.quiz, cases.hidden, cases.elsewhere)
    )
    scores = [[score for score, _ in of] for of in (given, quiz, hidden, elsewhere)]
    yield (
        f"AUC: SQuAD {auc(scores[0], scores[2]):.3f}, other collection "
        f"{auc(scores[0], scores[3]):.3f}, quiz {auc(scores[1], scores[3]):.3f}"
    )
    why = [bool(re.search(r"\b(?:how|why)\b", c.asked.text, re.IGNORECASE)) for c in cases.quiz]
    yield (
        "threshold | answered: SQuAD, quiz, its how and why | of SQuAD's answers the first "
        "sentence holds it, all of them do | refused: article left out, other collection"
    )
    for threshold in thresholds:
        said = [
            (case.asked, sentences)
            for case, (score, sentences) in zip(cases.given, given, strict=True)
            if score >= threshold
        ]
        first = [holds(asked, sentences[0].text) for asked, sentences in said]
        whole = [holds(asked, " ".join(s.text for s in sentences)) for asked, sentences in said]
        asks_why = [score for score, is_why in zip(scores[1], why, strict=True) if is_why]
        answered = (_share(np.array(of) >= threshold) for of in (*scores[:2], asks_why))
        refused = (_share(np.array(of) < threshold) for of in scores[2:])
        yield (
            f"{threshold:9.2f} | {' '.join(answered)} | {_share(np.array(first))} "
            f"{_share(np.array(whole))} | {' '.join(refused)}"
        )


def _share(flags: Mask) -> str:
    return f"{flags.mean():.3f}" if len(flags) else "-"


def report(model: EmbeddingModel, reader: PassageReader, data: Path, questions: int) -> None:
    """Prints the weights and the figures."""
    cases = examine(model, reader, data, questions)
    weights = fit([*cases.given, *cases.quiz], [*cases.hidden, *cases.elsewhere])
    print(f"model: {model.description}\nreader: {reader.description}")
    print(
        f"answerable: {len(cases.given)} of SQuAD, {len(cases.quiz)} of the quiz; "
        f"unanswerable: {len(cases.hidden)} and {len(cases.elsewhere)}"
    )
    for title, way, thresholds in (
        ("without a reader", by_relevance, (WITHOUT_READER,)),
        ("with the weights of the code", with_reader(WEIGHTS), THRESHOLDS),
        (f"fitted: {weights}", with_reader(weights), THRESHOLDS),
    ):
        print(f"\n{title}", *lines(cases, way, thresholds), sep="\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--reader", default="production-rag/reader")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--questions", type=int, default=500)
    options = parser.parse_args()
    model, reader = load_embedding_model(options.model), load_passage_reader(options.reader)
    report(model, reader, data_folder(), options.questions)


if __name__ == "__main__":
    main()
