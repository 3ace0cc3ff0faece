"""How probable it is that a sentence answers, from its relevance and from what a reader found.

A logistic model of the two, fitted by `python -m bench.answer_evidence` on questions about
articles that the reader was not trained on:

    log-odds = bias + relevance weight * relevance + span weight * span score

What a part of a sentence or a title costs (FORM_COST) is in its relevance: it weighs as it does
without a reader, and the probability is held against the threshold as it is.

Of a sentence that the reader did not read (it reads the first passages, and of each what its
model takes) the relevance alone decides, by a model of its own, so that both can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from encoders.reading import Read, best_span
from generator_worker.selection import Sentence, Vectors
from generator_worker.sentences import Place

# Passages read for a question, the best ones: 8 of 512 characters take about 1,300 tokens.
MOST_PASSAGES_READ: Final = 8


@dataclass(frozen=True, slots=True)
class Weights:
    """Of the logistic models: of sentences that were read, and of those that were not."""

    bias: float
    relevance: float
    span: float
    unread_bias: float
    unread_relevance: float


# Fitted by `python -m bench.answer_evidence` with the reader after 3,300 of its 6,600 steps. With
# all of them it fits (-2.92, 4.15, 0.226, -6.91, 6.81), which tell worse which questions of the
# Rust book's quiz can be answered: an AUC of .972 to .985 by the number of passages, these .983 to
# .994. On SQuAD's questions both are .977 to .981.
WEIGHTS: Final = Weights(-3.44, 5.32, 0.268, -6.39, 9.96)
# The models they and READER_THRESHOLD were tried with, by their fingerprints: of other
# similarities and other spans they say little.
EMBEDDER: Final = "3e518fec855a9b6f"
READER: Final = "e2d1ac18d7100802"

# A sentence may answer by its relevance though the reader denies it; then nothing is marked. Of 432
# answers from 8 passages 24 had a best span below 0, and 2 of those were right
# (`python -m bench.answer_evidence` counts them).
LEAST_MARKED: Final = 0.0

# Of emphasis, code and tables: no part of an answer, but tokens to a reader.
_MARKS: Final = "*`| "


@dataclass(frozen=True, slots=True)
class Evidence:
    """The best span of a sentence; score: log-odds against "not in this passage", as in
    `encoders.reading.Span`."""

    place: Place
    score: float


def find_evidence(sentences: Sequence[Sentence], reads: Sequence[Read]) -> list[Evidence | None]:
    """Of each sentence its best span; None where nothing of it was read.

    reads: of the first passages, in their order.
    """
    return [_best(sentence, reads) for sentence in sentences]


def _best(sentence: Sentence, reads: Sequence[Read]) -> Evidence | None:
    found: Evidence | None = None
    for place in sentence.places:
        if place.passage >= len(reads):
            continue
        span = best_span(reads[place.passage], place.start, place.end)
        if span is not None and (found is None or span.score > found.score):
            found = Evidence(Place(place.passage, span.start, span.end), span.score)
    return found


def unadorned(place: Place, text: str) -> Place:
    """The place without marks of Markdown at its ends, where anything else is left of it."""
    marked = text[place.start : place.end]
    end = place.start + len(marked.rstrip(_MARKS))
    start = place.end - len(marked.lstrip(_MARKS))
    return Place(place.passage, start, end) if start < end else place


def probabilities(
    relevance: Vectors, evidence: Sequence[Evidence | None], weights: Weights = WEIGHTS
) -> Vectors:
    """That each sentence answers, float32 [n], in 0..1; relevance: float32 [n]."""
    read = np.array([one is not None for one in evidence], dtype=np.bool_)
    spans = np.array([0.0 if one is None else one.score for one in evidence], dtype=np.float32)
    log_odds = np.where(
        read,
        weights.bias + weights.relevance * relevance + weights.span * spans,
        weights.unread_bias + weights.unread_relevance * relevance,
    )
    # As 1 / (1 + exp(-x)), without overflow.
    values: Vectors = (0.5 * (1 + np.tanh(log_odds / 2))).astype(np.float32)
    return values
