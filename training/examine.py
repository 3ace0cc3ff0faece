"""How well a reader reads, by itself: the right paragraph is given to it, or a wrong one.

What the whole system finds, reads and refuses is measured by `bench`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from tokenizers import Encoding

from bench.spans import exact, holds, token_f1
from bench.stats import auc
from encoders.encoder import Floats
from encoders.reading import Read, Span, best_span
from training.reader import Reader
from training.squad import Paragraph, Question, passages

# Rows of about 150 tokens that are read at once.
_BATCH_ROWS: Final = 32
# Paragraphs that are looked at for one that does not hold the answer.
_DRAWS: Final = 20
# SQuAD is prose: a full stop, and a capital, a digit or a quotation mark after it. What a person
# is shown is cut by the generator, and measured with the whole system.
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*\s+(?=[\"'“‘(\[]?[A-Z0-9])")


@dataclass(frozen=True, slots=True)
class Found:
    """The best span of a passage."""

    passage: str
    span: Span

    @property
    def text(self) -> str:
        """What is marked."""
        return self.passage[self.span.start : self.span.end]

    @property
    def sentence(self) -> str:
        """The sentence in which the span begins."""
        ends = [match.end() for match in _SENTENCE_END.finditer(self.passage)]
        first = max((end for end in ends if end <= self.span.start), default=0)
        last = min((end for end in ends if end > self.span.start), default=len(self.passage))
        return self.passage[first:last]


@dataclass(frozen=True, slots=True)
class Figures:
    """Means over questions, 0..1 but for their number.

    f1, exact: token F1 and exact match of the best span in the right paragraph with the answer
        that people marked; a reader may not refuse here.
    sentences: share of questions whose span lies in a sentence that holds the answer.
    auc_near, auc_far: how often the right paragraph's best span has a higher score than that of
        another paragraph, of any question: of the same article (near) or another one (far).
    answered: share of right paragraphs whose best span scores above "not in this passage".
    refused_near, refused_far: share of wrong paragraphs whose best span does not.
    """

    questions: int
    f1: float
    exact: float
    sentences: float
    auc_near: float
    auc_far: float
    answered: float
    refused_near: float
    refused_far: float


def examine(
    reader: Reader, paragraphs: Sequence[Paragraph], *, questions: int = 1000, seed: int = 0
) -> Figures:
    """Figures on `questions` questions (or all, if they are fewer), drawn by the seed of those
    that have an answer.

    Raises ValueError when the paragraphs are of fewer than two articles.
    """
    if len({paragraph.article for paragraph in paragraphs}) < 2:
        raise ValueError("a reader is examined on paragraphs of two articles at least")
    order = random.Random(seed)
    asked = [
        (paragraph, one) for paragraph in paragraphs for one in paragraph.questions if one.answers
    ]
    sample = order.sample(asked, min(questions, len(asked)))
    right = [(question, paragraph) for paragraph, question in sample]
    near, far = (
        [
            (question, other)
            for question, own in right
            if (other := _another(paragraphs, own, question, order, same_article=same)) is not None
        ]
        for same in (True, False)
    )
    found = best(reader, [*right, *near, *far])
    scores = [one.span.score for one in found[len(right) :]]
    return _figures(
        [question for question, _ in right],
        found[: len(right)],
        scores[: len(near)],
        scores[len(near) :],
    )


def _figures(
    asked: Sequence[Question], right: Sequence[Found], near: Sequence[float], far: Sequence[float]
) -> Figures:
    pairs = [(found, one.answers) for found, one in zip(right, asked, strict=True)]
    scores = [found.span.score for found in right]
    return Figures(
        questions=len(asked),
        f1=_mean([token_f1(found.text, every) for found, every in pairs]),
        exact=_mean([exact(found.text, every) for found, every in pairs]),
        sentences=_mean([holds(found.sentence, every) for found, every in pairs]),
        auc_near=auc(scores, near),
        auc_far=auc(scores, far),
        answered=_mean([score > 0 for score in scores]),
        refused_near=_mean([score <= 0 for score in near]),
        refused_far=_mean([score <= 0 for score in far]),
    )


def best(reader: Reader, asked: Sequence[tuple[Question, Paragraph]]) -> list[Found]:
    """Of each paragraph's passages the best span for the question asked of it, in order."""
    rows = [
        (at, question.text, passage)
        for at, (question, paragraph) in enumerate(asked)
        for passage in passages(paragraph)
    ]
    found: dict[int, Found] = {}
    spans = read(reader, [(question, passage) for _, question, passage in rows])
    for (at, _, _), one in zip(rows, spans, strict=True):
        if at not in found or one.span.score > found[at].span.score:
            found[at] = one
    return [found[at] for at in range(len(asked))]


def read(reader: Reader, pairs: Sequence[tuple[str, str]]) -> list[Found]:
    """The best span of each (question, passage), in order.

    Raises ValueError for a passage without a token.
    """
    found: dict[int, Found] = {}
    # By length: hardly any padding.
    order = sorted(range(len(pairs)), key=lambda at: len(pairs[at][0]) + len(pairs[at][1]))
    for start in range(0, len(order), _BATCH_ROWS):
        batch = order[start : start + _BATCH_ROWS]
        encodings = reader.encode([pairs[at] for at in batch])
        with torch.inference_mode():
            logits = reader(encodings).cpu().numpy()
        for at, encoding, row in zip(batch, encodings, logits, strict=True):
            found[at] = _found(pairs[at][1], encoding, row)
    return [found[at] for at in range(len(pairs))]


def _found(passage: str, encoding: Encoding, logits: Floats) -> Found:
    own = [at for at, text in enumerate(encoding.sequence_ids) if text == 1]
    ranges = np.array([encoding.offsets[at] for at in own], np.int64).reshape(-1, 2)
    read = Read(logits[own, 0], logits[own, 1], float(logits[0].sum()), ranges)
    span = best_span(read, 0, len(passage))
    if span is None:
        raise ValueError(f"a passage without a token: {passage!r}")
    return Found(passage, span)


def _another(
    paragraphs: Sequence[Paragraph],
    own: Paragraph,
    question: Question,
    order: random.Random,
    *,
    same_article: bool,
) -> Paragraph | None:
    """Another paragraph, without the answer's words; None when the article has hardly one."""
    others = [
        other
        for other in paragraphs
        if other is not own and (other.article == own.article) is same_article
    ]
    for other in order.sample(others, min(len(others), _DRAWS)):
        if not holds(other.text, question.answers):
            return other
    return None


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
