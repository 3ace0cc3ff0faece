"""What a reranker is trained on: queries of several styles, a right passage and some like it."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.examples import answers
from training.nearest import Indices, Pool

# Queries of one step, each with passages that look like its own. Those of the other queries count
# as wrong too, and are easy: the base by itself takes the right one of 64 in nine of ten.
STEP_QUERIES: Final = 16
LIKE: Final = 4
# What people type into a search field, too, beside questions: a few words, or a sentence like those
# they look for. The rest are the questions as they were asked.
KEYWORDS: Final = 0.2
SENTENCES: Final = 0.2
# Of sentences, how many are taken out of the passage that they are to find: else words alone would
# find it (Lee, Chang and Toutanova 2019, the inverse cloze task, who leave one in ten).
TAKEN_OUT: Final = 0.9
MADE_WITH: Final[Mapping[str, float]] = MappingProxyType(
    {
        "step_queries": STEP_QUERIES,
        "like": LIKE,
        "keywords": KEYWORDS,
        "sentences": SENTENCES,
        "taken_out": TAKEN_OUT,
    }
)
STYLES: Final = (
    f"questions; {KEYWORDS:.0%} their keywords, {SENTENCES:.0%} sentences of the passage, "
    f"{TAKEN_OUT:.0%} of them taken out of it"
)
# Of whatever is trained on them.
KNOWN_FAILURES: Final = (
    "It knows English alone; other languages, code and tables were never read.",
    "It was trained on questions, keywords and sentences about Wikipedia's articles. On some other "
    "collections it changes little or makes the order worse; docs/quality.md has the figures.",
)
# A sentence or passage shorter than this says too little.
_FEWEST_CHARACTERS: Final = 40
# Of the passages by likeness those that are drawn: the 9th on average.
_MEAN_RANK: Final = 8
_DRAWS: Final = 8

_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"“(])")
_WORD: Final = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")
# fmt: off
_NO_CONTENT: Final = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "been", "by", "can", "could", "did", "do", "does",
    "for", "from", "had", "has", "have", "how", "in", "is", "it", "its", "many", "much", "of", "on",
    "or", "that", "the", "there", "these", "this", "those", "to", "was", "were", "what", "when",
    "where", "which", "who", "whom", "whose", "why", "will", "with", "would",
})
# fmt: on


@dataclass(frozen=True, slots=True)
class Asked:
    """A query, the passage that it should find, and some like it that it should not.

    paragraph: whose passage it is; other passages of the same one are neither right nor wrong.
    like: (paragraph, passage) of each.
    """

    query: str
    passage: str
    paragraph: int
    like: tuple[tuple[int, str], ...]


def keywords(question: str) -> str:
    """The question's words that carry content, in their order; the question where none does."""
    kept = [word for word in _WORD.findall(question) if word.casefold() not in _NO_CONTENT]
    return " ".join(kept) or question


class Queries:
    """The queries of each step: pass after pass over all questions that have an answer, each
    drawn anew."""

    def __init__(self, pool: Pool, near: Indices, seed: int) -> None:
        """near: of each question the positions of the passages most like it, int32 [questions, n].

        Raises ValueError for fewer questions than a step takes.
        """
        self._answered = [at for at, (_, question) in enumerate(pool.asked) if question.answers]
        if len(self._answered) < STEP_QUERIES:
            raise ValueError(f"{len(self._answered)} questions; a step takes {STEP_QUERIES}")
        self._pool, self._near, self._seed = pool, near, seed
        self._pass = -1
        self._order: list[int] = []

    def __call__(self, step: int) -> list[Asked]:
        """Any step, the same always."""
        steps_a_pass = len(self._answered) // STEP_QUERIES
        number, within = divmod(step, steps_a_pass)
        if number != self._pass:
            self._pass = number
            self._order = list(self._answered)
            random.Random(f"{self._seed}/{number}").shuffle(self._order)
        draw = random.Random(f"{self._seed}/{number}/{within}")
        chosen = self._order[within * STEP_QUERIES : (within + 1) * STEP_QUERIES]
        return [self._draw(at, draw) for at in chosen]

    def _draw(self, at: int, draw: random.Random) -> Asked:
        paragraph, question = self._pool.asked[at]
        own = self._pool.texts[self._pool.first[paragraph] : self._pool.first[paragraph + 1]]
        held = [text for text in own if answers(question, text)] or own
        passage = draw.choice(held)
        like = tuple(
            (self._pool.owner[text], self._pool.texts[text])
            for text in (self._like(at, draw) for _ in range(LIKE))
        )
        style = draw.random()
        query = question.text
        if style < SENTENCES:
            query, passage = _sentence(passage, draw) or (query, passage)
        elif style < SENTENCES + KEYWORDS:
            query = keywords(question.text)
        return Asked(query, passage, paragraph, like)

    def _like(self, at: int, draw: random.Random) -> int:
        """Position of a passage of another paragraph that looks like the answer and holds none;
        of one in a thousand questions, whose answer is a common word, it may hold one."""
        paragraph, question = self._pool.asked[at]
        near: NDArray[np.int32] = self._near[at]
        found = 0
        for _ in range(_DRAWS):
            found = int(near[min(len(near) - 1, int(draw.expovariate(1 / _MEAN_RANK)))])
            if self._pool.owner[found] != paragraph and not answers(
                question, self._pool.texts[found]
            ):
                break
        return found


def _sentence(passage: str, draw: random.Random) -> tuple[str, str] | None:
    """A sentence of the passage and mostly the passage without it; None where it has one alone."""
    sentences = _SENTENCE_END.split(passage)
    long = [at for at, text in enumerate(sentences) if len(text) >= _FEWEST_CHARACTERS]
    if not long:
        return None
    at = draw.choice(long)
    rest = " ".join(sentences[:at] + sentences[at + 1 :])
    if len(rest) < _FEWEST_CHARACTERS:
        return None
    return sentences[at], rest if draw.random() < TAKEN_OUT else passage
