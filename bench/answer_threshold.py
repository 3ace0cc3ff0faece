"""Where the extractive engine says "The indexed documents do not answer this.".

    python -m bench.answer_threshold [--model NAME] [--articles 30] [--questions 500]

Measures ANSWER_THRESHOLD for an embedding model. Each question gets the five
passages nearest to it by that model, from a collection that answers it and from
one that cannot:

- answerable: SQuAD questions whose paragraph is among the five; quiz questions
  of the Rust book with a passage of their chapter among the five;
- unanswerable: the same SQuAD questions with their own article left out (its
  neighbours among the other articles remain), SQuAD questions asked of the Rust
  book, quiz questions asked of SQuAD.

88 of the 158 quiz questions show code; many are puzzles that no sentence answers.
Seeded; nothing is trained. Reads BENCH_DATA (default ../shared/data).

all-MiniLM-L6-v2 (bfloat16), 30 articles, 500 questions. SQuAD's paragraph was
among the five for 452 of 500, the quiz's chapter for 95 of 158; what was said
held the official answer in .865 of the 452. Telling answerable from
unanswerable, AUC: .979 (article left out), .999 (other collection).

    threshold | answerable, but refused | unanswerable, and refused
              | SQuAD          quiz     | article left out   other collection
        0.500 |  .007          .021     |  .652              .989
        0.525 |  .011          .074     |  .764              .995
        0.550 |  .013          .095     |  .826              .997   <- the default
        0.575 |  .024          .158     |  .878              .998
        0.600 |  .049          .221     |  .908              .998
        0.650 |  .111          .400     |  .962              1.000

0.55 refuses four in five of the questions whose article is missing and nearly
all that belong to another field, for about one answerable question in fifty.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from semantic_text_splitter import MarkdownSplitter

from bench.datasets import data_folder, rust_quiz
from bench.stats import auc
from encoders.embedding import EmbeddingModel, load_embedding_model
from generator_worker.engines.base import Passage
from generator_worker.engines.extractive import read_sentences
from generator_worker.selection import Vectors, choose, opening_worth, relevance
from generator_worker.sentences import words

SEED: Final = 7
TOP_K: Final = 5
CHUNK_SIZE: Final = 512
OVERLAP: Final = 50
THRESHOLDS: Final = (0.40, 0.45, 0.50, 0.525, 0.55, 0.575, 0.60, 0.65, 0.70)
NO_SENTENCE: Final = -1.0

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Asked:
    """A question; `home` and `gold`: where its answer stands; `answers`: as people wrote them."""

    text: str
    home: frozenset[str]
    gold: str = ""
    answers: tuple[str, ...] = ()


class SentenceVectors:
    """The vector of any sentence, embedded once."""

    def __init__(self, model: EmbeddingModel) -> None:
        self._model = model
        self._known: dict[str, Vectors] = {}

    def of(self, sentences: Sequence[str]) -> Vectors:
        """Unit vectors, float32 [n, d]."""
        missing = sorted(set(sentences) - self._known.keys())
        if missing:
            self._known.update(zip(missing, unit(self._model.encode(missing)), strict=True))
        return np.stack([self._known[sentence] for sentence in sentences])


@dataclass(frozen=True)
class Corpus:
    """Passages, the article or chapter of each, and their vectors, float32 [n, d]."""

    texts: list[str]
    homes: npt.NDArray[np.str_]
    vectors: Vectors
    sentences: SentenceVectors


@dataclass(frozen=True)
class Outcome:
    """What the engine made of one question.

    home_found: a passage of the question's home was given; gold_found: its very paragraph.
    said: its sentences, were the threshold to let them pass.
    """

    asked: Asked
    best_score: float
    home_found: bool
    gold_found: bool
    said: str


def squad(data: Path, articles: int, questions: int) -> tuple[list[tuple[str, str]], list[Asked]]:
    """(article, paragraph) of so many articles, and so many questions asked of them."""
    rng = random.Random(SEED)
    with gzip.open(data / "squad" / "train-v1.1.json.gz", "rt") as file:
        chosen = rng.sample(json.load(file)["data"], articles)
    passages: list[tuple[str, str]] = []
    asked: list[Asked] = []
    for article in chosen:
        title = article["title"]
        for paragraph in article["paragraphs"]:
            text = paragraph["context"]
            passages.append((title, text))
            for question in paragraph["qas"]:
                answers = tuple(answer["text"] for answer in question["answers"])
                asked.append(Asked(question["question"], frozenset({title}), text, answers))
    return passages, rng.sample(asked, questions)


def rust(data: Path) -> tuple[list[tuple[str, str]], list[Asked]]:
    """(chapter, chunk) of the book as the gateway cuts it, and the quiz."""
    collection = rust_quiz(data)
    splitter = MarkdownSplitter(CHUNK_SIZE, OVERLAP)
    passages = [
        (doc.id, text) for doc in collection.documents for text in splitter.chunks(doc.text)
    ]
    return passages, [Asked(q.text, frozenset(q.grades)) for q in collection.questions]


def open_corpus(model: EmbeddingModel, passages: Sequence[tuple[str, str]]) -> Corpus:
    """Embeds the passages; a sentence is embedded when it is first read."""
    texts = [text for _, text in passages]
    homes = np.array([home for home, _ in passages])
    return Corpus(texts, homes, unit(model.encode(texts)), SentenceVectors(model))


def unit(vectors: Vectors) -> Vectors:
    """Rows of length 1."""
    scaled: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return scaled


def ask(
    corpus: Corpus,
    questions: Iterable[tuple[Asked, Vectors]],
    allowed: Callable[[Asked], Mask] | None = None,
) -> list[Outcome]:
    """The engine's choice for each question, whatever its score."""
    outcomes = []
    for asked, vector in questions:
        similarity = corpus.vectors @ vector
        if allowed is not None:
            similarity = np.where(allowed(asked), similarity, -np.inf)
        nearest = np.argsort(-similarity, kind="stable")[:TOP_K]
        texts = [corpus.texts[index] for index in nearest]
        score, said = select(corpus, asked, vector, texts)
        home_found = any(str(corpus.homes[index]) in asked.home for index in nearest)
        outcomes.append(Outcome(asked, score, home_found, asked.gold in texts, said))
    return outcomes


def select(
    corpus: Corpus, asked: Asked, vector: Vectors, texts: Sequence[str]
) -> tuple[float, str]:
    """Best score and the sentences chosen at no threshold."""
    sentences = read_sentences([Passage(text) for text in texts])
    if not sentences:
        return NO_SENTENCE, ""
    vectors = corpus.sentences.of([sentence.text for sentence in sentences])
    scores = relevance(asked.text, vector, sentences, vectors)
    first = opening_worth(asked.text, sentences)
    chosen = choose(sentences, scores, vectors, most=4, threshold=-2, opening=first)
    return chosen.best_score, " ".join(sentence.text for sentence in chosen.sentences)


def below(outcomes: Sequence[Outcome], threshold: float) -> float:
    """Share of the questions that get the no-answer sentence."""
    return float(np.mean([outcome.best_score < threshold for outcome in outcomes]))


def holds_answer(outcome: Outcome) -> bool:
    """Whether an official answer stands in what was said, word for word."""
    said = f" {' '.join(words(outcome.said))} "
    return any(f" {' '.join(words(answer))} " in said for answer in outcome.asked.answers)


def report(model: EmbeddingModel, data: Path, articles: int, questions: int) -> None:
    """Prints the figures."""
    squad_passages, squad_questions = squad(data, articles, questions)
    rust_passages, quiz = rust(data)
    squad_corpus, rust_corpus = (open_corpus(model, p) for p in (squad_passages, rust_passages))
    asked_squad = embed(model, squad_questions)
    asked_quiz = embed(model, quiz)

    given = [o for o in ask(squad_corpus, asked_squad) if o.gold_found]
    hidden = ask(squad_corpus, asked_squad, lambda q: ~np.isin(squad_corpus.homes, list(q.home)))
    quiz_given = [o for o in ask(rust_corpus, asked_quiz) if o.home_found]
    elsewhere = ask(rust_corpus, asked_squad) + ask(squad_corpus, asked_quiz)

    print(f"model: {model.description}")
    print(
        f"SQuAD: paragraph among the {TOP_K} for {len(given)} of {len(squad_questions)}; "
        f"the answer's sentences hold the answer for {np.mean([*map(holds_answer, given)]):.3f}"
    )
    print(f"quiz: chapter among the {TOP_K} for {len(quiz_given)} of {len(quiz)}")
    scores, absent, foreign = (
        [outcome.best_score for outcome in of] for of in (given, hidden, elsewhere)
    )
    print(f"AUC: SQuAD {auc(scores, absent):.3f}, other collection {auc(scores, foreign):.3f}")
    print(
        "threshold | answerable, refused: SQuAD, quiz | unanswerable, refused: SQuAD with the "
        "article left out, other collection"
    )
    for threshold in THRESHOLDS:
        shares = (below(o, threshold) for o in (given, quiz_given, hidden, elsewhere))
        print(f"{threshold:9.3f} | {next(shares):.3f} {next(shares):.3f} | "
              f"{next(shares):.3f} {next(shares):.3f}")  # fmt: skip


def embed(model: EmbeddingModel, questions: Sequence[Asked]) -> list[tuple[Asked, Vectors]]:
    """The questions with their vectors."""
    vectors = unit(model.encode([question.text for question in questions], "query"))
    return list(zip(questions, vectors, strict=True))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--articles", type=int, default=30)
    parser.add_argument("--questions", type=int, default=500)
    options = parser.parse_args()
    data = data_folder()
    report(load_embedding_model(options.model), data, options.articles, options.questions)


if __name__ == "__main__":
    main()
