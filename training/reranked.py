"""Figures of whatever scores passages, on held-out articles: how it orders what the base's vectors
find."""

from __future__ import annotations

import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import torch
from torch import Tensor

from training.card import table
from training.examples import answers
from training.nearest import nearest, pool_of
from training.squad import Paragraph

# The passages that are reordered, the right one among them.
RERANKED: Final = 20
EXAMINED_QUESTIONS: Final = 500
_SEED: Final = 1


class Scorer(Protocol):
    """Late interaction or a cross-encoder."""

    def scores(self, query: str, passages: Sequence[str]) -> Tensor:
        """float32 [passages], on the CPU."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Over the questions of which a right passage is among the RERANKED nearest, each a mean.

    A right passage is of the question's own paragraph and holds an answer.
    found_first, found_mrr: success at 1 and mean reciprocal rank in the order of the base's
        vectors; first, mrr: in the scorer's.
    """

    questions: int
    found_first: float
    found_mrr: float
    first: float
    mrr: float


def examine(scorer: Scorer, paragraphs: tuple[Paragraph, ...], folder: Path, *, name: str) -> str:
    """Figures in Markdown; `name` is the scorer's. Raises ValueError as `figures`."""
    found = figures(scorer, paragraphs, folder, questions=EXAMINED_QUESTIONS)
    return table(
        f"The right passage among the {RERANKED} nearest, {found.questions:,} questions about "
        f"articles it was not trained on; `python -m training {name}` measures this",
        ("order", "right passage first", "MRR"),
        [
            ("of the base's vectors", f"{found.found_first:.3f}", f"{found.found_mrr:.3f}"),
            ("of the scores", f"{found.first:.3f}", f"{found.mrr:.3f}"),
        ],
    )


def figures(
    scorer: Scorer, paragraphs: tuple[Paragraph, ...], folder: Path, *, questions: int
) -> Figures:
    """Asks a seeded sample of the paragraphs' questions.

    folder: keeps what is nearest to them.
    Raises ValueError when of no question a right passage is found.
    """
    pool = pool_of(paragraphs)
    near = nearest(pool, folder / "held-out.npz")
    sample = random.Random(_SEED).sample(range(len(pool.asked)), min(questions, len(pool.asked)))
    before: list[int] = []
    after: list[int] = []
    for at in sample:
        paragraph, question = pool.asked[at]
        shown = [int(text) for text in near[at][:RERANKED]]
        right = torch.tensor(
            [pool.owner[i] == paragraph and answers(question, pool.texts[i]) for i in shown]
        )
        if right.any():
            scores = scorer.scores(question.text, [pool.texts[i] for i in shown])
            before.append(_rank(right))
            after.append(_rank(right[scores.argsort(descending=True, stable=True)]))
    if not before:
        raise ValueError("no question's passage was found")
    return Figures(
        len(before),
        statistics.fmean(rank == 1 for rank in before),
        statistics.fmean(1 / rank for rank in before),
        statistics.fmean(rank == 1 for rank in after),
        statistics.fmean(1 / rank for rank in after),
    )


def _rank(right: Tensor) -> int:
    """Of the first that is right, from 1: bool [n]."""
    return int(right.int().argmax()) + 1
