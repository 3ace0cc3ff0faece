"""How a reader's spans and a sentence's relevance decide together what answers.

    python -m bench.answer_evidence [--reader NAME] [--model NAME] [--questions 400]

Fits `generator_worker.evidence.WEIGHTS` for all numbers of PASSAGES at once, and shows what each
READER_THRESHOLD does at each. Takes some ten minutes on two cores; what is retrieved, embedded and
read is so once (`bench/answer_cases.py`), from a collection that answers a question and from one
that cannot:

- answerable: questions about SQuAD's calibration articles, which no adapter was trained on, with
  a passage that holds the answer among the first (thirty more articles are indexed beside them,
  about which nothing is asked); quiz questions of the Rust book with a passage of their chapter
  among them;
- unanswerable: the same SQuAD questions with their own article left out, SQuAD questions asked of
  the Rust book, quiz questions asked of SQuAD.

Of each question the best sentence that was read, by the weights so far, gives relevance and span
score; where people marked the answer, the best three do, and those of them answer that hold it.
The weights that tell best which answer are fitted to these, and the best sentences chosen anew,
ROUNDS times. Were only questions told apart, relevance would decide alone: the article that is
asked about is easier to know than the sentence. Sentences that answer count as much as the others
together.

Sentences that were not read stand behind eight passages that were, and seldom answer. The most
relevant of them give the other two weights; an answer counts as much there as among those that
were read, and so does what is none, so that both probabilities mean the same. Only marked answers
tell which of them answer: that the chapter is among the passages says nothing about one behind.

Seeded. Reads BENCH_DATA (default ../shared/data).
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from bench.answer_cases import PASSAGES, Case, Examiner, Groups, holds, retrieve
from bench.answer_threshold import Mask
from bench.datasets import data_folder
from bench.logistic import logistic_regression
from bench.spans import token_f1
from bench.stats import auc
from encoders.embedding import load_embedding_model
from encoders.reading import load_passage_reader
from generator_worker.evidence import WEIGHTS, Evidence, Weights, probabilities
from generator_worker.selection import Sentence, Vectors, choose, opening_worth

ROUNDS: Final = 6
MOST_SENTENCES: Final = 4
# Sentences of a question that teach which of them answers.
RANKED: Final = 3
THRESHOLDS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
# Those that one is chosen of.
FINE: Final = tuple(at / 100 for at in range(1, 100))
# Share of the questions whose article is left out that a threshold is to refuse: what is aimed at
# for articles that nothing was chosen on (bench/reading.py).
REFUSED: Final = 0.8
# What ANSWER_THRESHOLD is without a reader, for comparison.
WITHOUT_READER: Final = 0.55
# A mark is right that shares this much with an answer, token F1.
RIGHT: Final = 0.5
# Span scores between which marks are counted.
BOUNDS: Final = (-math.inf, -8.0, -6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 8.0, math.inf)

# Relevance, span score, and whether it answers.
Row = tuple[float, float, bool]
ByPassages = Mapping[int, Groups[Case]]


@dataclass(frozen=True, slots=True)
class Answer:
    """Best score of a case, and its sentences were the threshold to let them pass; evidence: of
    the first."""

    score: float
    sentences: Sequence[Sentence] = ()
    evidence: Evidence | None = None


Way = Callable[[Case], Answer]


def fit(cases: Sequence[Case]) -> Weights:
    """The weights that tell best which of the best sentences answer."""
    weights = WEIGHTS
    for _ in range(ROUNDS):
        rows = [row for case in cases for row in read_rows(case, weights)]
        labels = np.array([answers for *_, answers in rows], np.bool_)
        # Of one that answers, and of one that does not: together they count alike.
        half = len(rows) / 2
        count = (half / max(1, (~labels).sum()), half / max(1, labels.sum()))
        bias, of_relevance, of_span = _fitted(rows, 2, count)
        weights = Weights(bias, of_relevance, of_span, 0.0, 0.0)
    unread = [row for case in cases for row in unread_rows(case)]
    unread_bias, of_unread = _fitted(unread, 1, count)
    return replace(weights, unread_bias=unread_bias, unread_relevance=of_unread)


def _fitted(rows: Sequence[Row], features: int, count: tuple[float, float]) -> list[float]:
    table = np.array(rows, np.float64).reshape(-1, 3)
    labels = table[:, 2] > 0
    counts = np.where(labels, count[1], count[0])
    return [float(one) for one in logistic_regression(table[:, :features], labels, counts)]


def read_rows(case: Case, weights: Weights) -> Iterator[Row]:
    """The sentence that is most likely to answer of those that were read; where people marked
    what answers, the next ones too."""
    read = [at for at, one in enumerate(case.evidence) if one is not None]
    spans = {at: one.score for at, one in enumerate(case.evidence) if one is not None}
    odds = {at: weights.relevance * case.relevance[at] + weights.span * spans[at] for at in read}
    for at in _first(case, sorted(read, key=odds.__getitem__, reverse=True)):
        known = not case.asked.answers or holds(case.asked, case.sentences[at].text)
        yield float(case.relevance[at]), spans[at], case.found and known


def unread_rows(case: Case) -> Iterator[Row]:
    """As `read_rows`, of those that were not."""
    if case.found and not case.asked.answers:
        return
    unread = [at for at, one in enumerate(case.evidence) if one is None]
    for at in _first(case, sorted(unread, key=case.relevance.__getitem__, reverse=True)):
        known = holds(case.asked, case.sentences[at].text)
        yield float(case.relevance[at]), 0.0, case.found and known


def _first(case: Case, order: Sequence[int]) -> Sequence[int]:
    return order[: RANKED if case.found and case.asked.answers else 1]


def with_reader(weights: Weights) -> Way:
    """The engine's answer with a reader."""

    def answer(case: Case) -> Answer:
        return _answer(case, probabilities(case.relevance, case.evidence, weights))

    return answer


def by_relevance(case: Case) -> Answer:
    """As the engine answers without a reader."""
    return _answer(case, case.relevance, opening_worth(case.asked.text, case.sentences))


def _answer(case: Case, scores: Vectors, opening: Vectors | None = None) -> Answer:
    if not case.sentences:
        return Answer(-1.0)
    chosen = choose(
        case.sentences, scores, case.vectors, most=MOST_SENTENCES, threshold=-2, opening=opening
    )
    first = case.sentences.index(chosen.sentences[0])
    return Answer(chosen.best_score, chosen.sentences, case.evidence[first])


def lines(cases: Groups[Case], way: Way, thresholds: Sequence[float]) -> Iterator[str]:
    """The figures of one way to answer."""
    given, quiz, hidden, elsewhere = (
        [way(case) for case in of]
        for of in (cases.given, cases.quiz, cases.hidden, cases.elsewhere)
    )
    scores = [[one.score for one in of] for of in (given, quiz, hidden, elsewhere)]
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
            (case.asked, one.sentences)
            for case, one in zip(cases.given, given, strict=True)
            if one.score >= threshold
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


def chosen_threshold(by_passages: ByPassages, way: Way) -> float | None:
    """The lowest of FINE that, whatever the number of passages, refuses REFUSED of the questions
    whose article is left out; None: no one does."""
    scores = [np.array([way(case).score for case in of.hidden]) for of in by_passages.values()]
    return next(
        (one for one in FINE if all(np.mean(of < one) >= REFUSED for of in scores)),
        None,
    )


def marks(cases: Groups[Case], way: Way, threshold: float) -> Iterator[str]:
    """How often the best span of an answer's first sentence is right, by its score: what
    `generator_worker.evidence.LEAST_MARKED` is chosen by. Where the article is left out none is."""
    found = []
    for case in (*cases.given, *cases.hidden):
        answer = way(case)
        if answer.score < threshold or answer.evidence is None:
            continue
        place = answer.evidence.place
        text = case.texts[place.passage][place.start : place.end]
        right = case.found and token_f1(text, case.asked.answers) >= RIGHT
        found.append((answer.evidence.score, right, case.found))
    yield "marks: score from, to | answers, answerable | right: of these, of all"
    for least, below in pairwise(BOUNDS):
        here = [one for one in found if least <= one[0] < below]
        good = np.array([good for _, good, _ in here], np.bool_)
        can = np.array([can for *_, can in here], np.bool_)
        yield (
            f"{least:6} {below:6} | {len(here):4} {can.sum():4} | "
            f"{_share(good[can])} {_share(good)}"
        )


def report(by_passages: ByPassages) -> None:
    """Prints the weights and the figures."""
    cases = [
        case
        for of in by_passages.values()
        for case in (*of.given, *of.quiz, *of.hidden, *of.elsewhere)
    ]
    weights = fit(cases)
    unread = [answers for case in cases for *_, answers in unread_rows(case)]
    print(f"unread sentences: {len(unread)}, of them {sum(unread)} answer")
    for n, of in by_passages.items():
        print(
            f"\n{n} passages: answerable {len(of.given)} of SQuAD, {len(of.quiz)} of the quiz; "
            f"unanswerable {len(of.hidden)} and {len(of.elsewhere)}"
        )
        for title, way, thresholds in (
            ("without a reader", by_relevance, (WITHOUT_READER,)),
            ("with the weights of the code", with_reader(WEIGHTS), THRESHOLDS),
            (f"fitted: {weights}", with_reader(weights), THRESHOLDS),
        ):
            print(f"\n{title}", *lines(of, way, thresholds), sep="\n")
    for title, made in (("the code", WEIGHTS), ("the fit", weights)):
        way = with_reader(made)
        threshold = chosen_threshold(by_passages, way)
        print(f"\nthreshold by the weights of {title}: {threshold}")
        if threshold is not None:
            for n, of in by_passages.items():
                *_, figures = lines(of, way, (threshold,))
                print(f"{n:2} passages, {figures}", *marks(of, way, threshold), sep="\n")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--reader", default="production-rag/reader")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--questions", type=int, default=400)
    options = parser.parse_args()
    model, reader = load_embedding_model(options.model), load_passage_reader(options.reader)
    settings = {
        "EMBEDDING_MODEL": options.model,
        "VECTOR_DIM": str(model.identity.dimension),
        "READER_MODEL": "none",
    }
    found = retrieve(data_folder(), options.questions, settings)
    examiner = Examiner(model, reader)
    print(
        f"model: {model.description}, EMBEDDER = {model.identity.fingerprint!r}\n"
        f"reader: {reader.description}, READER = {reader.identity.fingerprint!r}"
    )
    report({passages: examiner.cases(found, passages) for passages in PASSAGES})


if __name__ == "__main__":
    main()
