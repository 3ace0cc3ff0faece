"""Which sentences answer a question, from their vectors and their words.

A sentence's score is the cosine of its embedding to the question's plus
OVERLAP_WEIGHT times the share of the question's content words that it holds,
less FORM_COST where it is no whole sentence.
Measured with all-MiniLM-L6-v2 on 450 SQuAD questions whose paragraph is among
the five given: the best sentence holds the answer in .740 (cosine alone .698),
the best two in .840 (.809); telling answerable from unanswerable questions, AUC
.979 (.969). On WikiQA and TREC-QA (development sets) it makes no difference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from generator_worker.sentences import Form, Place, leans, words

Vectors = npt.NDArray[np.float32]

OVERLAP_WEIGHT: Final = 0.2
# A later sentence must come this near to the best one (over the same questions, sentences an
# answer and share that hold the answer: at 0.9 1.5 and .831, 0.85 1.8 and .851, 0.7 2.6 and .869)
NEAR_BEST: Final = 0.85
# and say something new: cosine to each one already chosen.
MAX_REDUNDANCY: Final = 0.85
# Weight of the redundancy in the order of choice (maximal marginal relevance,
# Carbonell and Goldstein 1998, https://doi.org/10.1145/290941.291025).
REDUNDANCY_WEIGHT: Final = 0.2
# The answer opens with the best sentence; among those near it one that is understood by itself
# goes first, and the one that says what the thing is that was asked for.
LEANING_COST: Final = 0.1
DEFINITION_WEIGHT: Final = 0.15
# The passages come best first; a rank further down costs this much.
RANK_COST: Final = 0.005
# What is no whole sentence must be this much more relevant than one. And a question's words are all
# there is to a title, so that it comes nearer to the question than any answer.
FORM_COST: Final[Mapping[Form, float]] = {Form.WHOLE: 0.0, Form.PART: 0.1, Form.TITLE: 0.25}
# Endings of English words are left aside by comparing this many letters.
STEM_LETTERS: Final = 5

# What questions are made of and answers are not.
_FUNCTION_WORDS: Final = (
    "a an the of in on at to for by with from into about is are was were be been being do does "
    "did has have had can could should would will what which who whom whose when where why how "
    "many much and or not it its this that these those as than then there i you we they he she "
    "my your our their his her me us them if so"
)
_NO_CONTENT: Final = frozenset(_FUNCTION_WORDS.split())

# "What is a trait?" and "A trait is ...", but not "A trait is used ..."
_ASKS_WHAT_IS = re.compile(
    r"what(?:\s+is|\s+are|['’]s)\s+(?:(?:an?|the)\s+)?([^?]+)\?*", re.IGNORECASE
)
_ARTICLE: Final = r"(?:(?:an?|the|\w+['’]s)\s+)?"
_DEFINES: Final = (
    r"(?:\s*\([^()]{1,40}\)|,[^,]{1,40},)?\s+(?:means?|defines?|describes?|refers?\s+to"
    r"|(?:is|are)(?!\s+(?:not|also|very|too|so|now|\w+(?:ly|ed|ing))\b))\b"
)


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and where it stands: passage (0-based, best first) and order in it.

    places: of its source, as far as they are known; in two passages where it was cut between them.
    """

    passage: int
    ordinal: int
    text: str
    form: Form = Form.WHOLE
    places: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class Chosen:
    """The sentences of an answer, the best one first, and the best score there was."""

    sentences: tuple[Sentence, ...]
    best_score: float


def overlap(question_words: frozenset[str], sentence: str) -> float:
    """Share of the question's content words (stems) in the sentence, 0..1."""
    if not question_words:
        return 0.0
    return len(question_words & _stems(sentence)) / len(question_words)


def content_words(question: str) -> frozenset[str]:
    """Stems of the question's words that carry content."""
    kept = (word for word in words(question) if word not in _NO_CONTENT)
    return frozenset(word[:STEM_LETTERS] for word in kept)


def relevance(
    question: str, question_vector: Vectors, sentences: Sequence[Sentence], vectors: Vectors
) -> Vectors:
    """Score of each sentence, float32 [n]; vectors are L2-normalised, [d] and [n, d]."""
    wanted = content_words(question)
    shares = np.array([overlap(wanted, s.text) for s in sentences], dtype=np.float32)
    scores: Vectors = vectors @ question_vector + np.float32(OVERLAP_WEIGHT) * shares
    return scores - form_costs(sentences)


def form_costs(sentences: Sequence[Sentence]) -> Vectors:
    """FORM_COST of each sentence, float32 [n]."""
    return np.array([FORM_COST[s.form] for s in sentences], dtype=np.float32)


def opening_worth(question: str, sentences: Sequence[Sentence]) -> Vectors:
    """How well each sentence opens an answer beyond its score, float32 [n]; in English."""
    asked = _ASKS_WHAT_IS.fullmatch(question.strip())
    term = asked.group(1).replace("`", "").strip().removesuffix("s") if asked else ""
    definition = re.compile(f"{_ARTICLE}{re.escape(term)}(?:e?s)?{_DEFINES}", re.IGNORECASE)

    def value(text: str) -> float:
        defines = term and definition.match(text.replace("`", "")) is not None
        return DEFINITION_WEIGHT * bool(defines) - LEANING_COST * leans(text)

    return np.array([value(s.text) for s in sentences], dtype=np.float32)


def choose(
    sentences: Sequence[Sentence],
    scores: Vectors,
    vectors: Vectors,
    *,
    most: int,
    threshold: float,
    opening: Vectors | None = None,
) -> Chosen:
    """At most `most` sentences that answer best; none when no score reaches `threshold`.

    scores: float32 [n], as `relevance` gives them, or probabilities made of these. The threshold
        alone decides which sentences may answer. Among those the constants above choose, the
        same numbers for either: RANK_COST and REDUNDANCY_WEIGHT are differences of scores,
        NEAR_BEST is a ratio.
    opening: float32 [n], added for the choice of the first.

    Parts of sentences only where no whole one comes near.
    """
    best_score = float(scores.max(initial=-1.0))
    if best_score < threshold:
        return Chosen((), best_score)
    worth = scores - np.array([RANK_COST * s.passage for s in sentences], dtype=np.float32)
    open_ = scores >= threshold
    best = float(worth[open_].max())
    open_ &= worth >= best - (1 - NEAR_BEST) * abs(best)
    whole = np.array([s.form is Form.WHOLE for s in sentences])
    if (open_ & whole).any():
        open_ &= whole
    redundancy = np.zeros(len(sentences), dtype=np.float32)
    picked: list[int] = []
    while open_.any() and len(picked) < most:
        first = opening if opening is not None and not picked else 0.0
        marginal = np.where(open_, worth + first - REDUNDANCY_WEIGHT * redundancy, -np.inf)
        pick = int(marginal.argmax())
        picked.append(pick)
        redundancy = np.maximum(redundancy, vectors @ vectors[pick])
        open_ &= redundancy < MAX_REDUNDANCY
    return Chosen(_best_first([sentences[i] for i in picked]), best_score)


def _best_first(picked: list[Sentence]) -> tuple[Sentence, ...]:
    """The best sentence, then its passage's others as written, then the other passages'."""
    order = list(dict.fromkeys(s.passage for s in picked))
    others = sorted(picked[1:], key=lambda s: (order.index(s.passage), s.ordinal))
    return (picked[0], *others)


def _stems(text: str) -> frozenset[str]:
    return frozenset(word[:STEM_LETTERS] for word in words(text))
