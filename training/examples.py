"""What a reader is trained on: questions, each asked of a passage that answers it or does not."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.batches import batches
from training.nearest import Indices, Pool
from training.squad import Question

# Padded tokens of one step: about 32 rows.
STEP_TOKENS: Final = 4096
# Of the questions, how many are asked of a passage that answers them ...
ANSWERED: Final = 0.72
# ... and of these, how many of their whole paragraph: people choose longer passages.
WHOLE_PARAGRAPHS: Final = 0.1
# Of those that are not, how many of a passage like the right one; the others of any.
NEAR: Final = 0.85
# Passages drawn for one that does not hold the answer: of the like ones, and then of all. So many,
# for one of SQuAD's answers is "s": of its 34,000 passages a few are without one. A question that
# every passage answers is asked of its own.
_NEAR_DRAWS: Final = 4
_DRAWS: Final = 1_000_000
# Of the passages by likeness those that are drawn: the 7th on average.
_MEAN_RANK: Final = 6


@dataclass(frozen=True, slots=True)
class Row:
    """A question asked of a passage; no `answers`: the passage does not hold one."""

    question: str
    passage: str
    answers: tuple[str, ...]


def rows(pool: Pool, near: Indices, order: random.Random) -> list[Row]:
    """One for each question of the pool, in its order.

    near: of each question the positions of the passages most like it, int32 [questions, n].
    """
    return [_row(pool, at, near[at], order) for at in range(len(pool.asked))]


def _row(pool: Pool, at: int, near: NDArray[np.int32], order: random.Random) -> Row:
    if order.random() < ANSWERED:
        return _answered(pool, at, order)
    question = pool.asked[at][1]
    if order.random() < NEAR:
        # The nearest often answer as well, in words that people did not mark.
        for _ in range(_NEAR_DRAWS):
            rank = int(order.expovariate(1 / _MEAN_RANK))
            text = pool.texts[near[min(len(near) - 1, rank)]]
            if not answers(question, text):
                return Row(question.text, text, ())
    for _ in range(_DRAWS):
        text = order.choice(pool.texts)
        if not answers(question, text):
            return Row(question.text, text, ())
    return _answered(pool, at, order)


def _answered(pool: Pool, at: int, order: random.Random) -> Row:
    paragraph, question = pool.asked[at]
    own = pool.texts[pool.first[paragraph] : pool.first[paragraph + 1]]
    held = [text for text in own if answers(question, text)]
    # An answer that the cut went through stands in no passage.
    if not held or order.random() < WHOLE_PARAGRAPHS:
        return Row(question.text, pool.paragraphs[paragraph].text, question.answers)
    return Row(question.text, order.choice(held), question.answers)


def answers(question: Question, text: str) -> bool:
    """Whether the text holds an answer, word for word, in whatever case."""
    folded = text.casefold()
    return any(answer.casefold() in folded for answer in question.answers)


class Examples:
    """The batch of each step: pass after pass over all questions, each drawn anew."""

    def __init__(self, pool: Pool, near: Indices, seed: int) -> None:
        """near: as `rows` takes it. Raises ValueError for a pool without questions."""
        if not pool.asked:
            raise ValueError("there is no question to train on")
        self._pool, self._near, self._seed = pool, near, seed
        self._pass = -1
        self._rows: list[Row] = []
        self._batches: list[list[int]] = []
        self._begins = 0

    def __call__(self, step: int) -> list[Row]:
        """Steps are asked for in their order, from any one on."""
        while self._pass < 0 or step >= self._begins + len(self._batches):
            self._begins += len(self._batches)
            self._pass += 1
            order = random.Random(f"{self._seed}/{self._pass}")
            self._rows = rows(self._pool, self._near, order)
            # English has about four characters a token.
            lengths = [(len(row.question) + len(row.passage)) // 4 + 3 for row in self._rows]
            self._batches = batches(lengths, STEP_TOKENS, order)
        return [self._rows[at] for at in self._batches[step - self._begins]]
