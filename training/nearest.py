"""Which passages look most like the answer to a question, by the base model's own vectors."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from encoders.blueprint import InputType
from encoders.embedding import EmbeddingModel, load_embedding_model
from encoders.encoder import Floats
from encoders.options import Runtime
from training.squad import Paragraph, Question, passages

BASE: Final = "sentence-transformers/all-MiniLM-L6-v2"
# Of so many nearest passages hard negatives are drawn.
NEAREST: Final = 40
# Texts embedded by one thread at a time, and rows of a product: 1,024 x 35,000 float32, 140 MB.
_BLOCK: Final = 1024

# In the work folder; every adapter is trained on the same.
_KEPT: Final = "nearest.npz"

Indices = NDArray[np.int32]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pool:
    """All passages and questions of some paragraphs, flat.

    owner: of each passage, its paragraph's position; asked: (paragraph's position, question).
    first: of each paragraph, the position of its first passage; one more at the end.
    """

    paragraphs: Sequence[Paragraph]
    texts: list[str]
    owner: list[int]
    first: list[int]
    asked: list[tuple[int, Question]]


def pool_of(paragraphs: Sequence[Paragraph]) -> Pool:
    """Cuts every paragraph into passages, as the product does."""
    texts: list[str] = []
    owner: list[int] = []
    first: list[int] = []
    for at, paragraph in enumerate(paragraphs):
        first.append(len(texts))
        cut = passages(paragraph)
        texts += cut
        owner += [at] * len(cut)
    first.append(len(texts))
    asked = [
        (at, question)
        for at, paragraph in enumerate(paragraphs)
        for question in paragraph.questions
    ]
    return Pool(paragraphs, texts, owner, first, asked)


def nearest(pool: Pool, path: Path) -> Indices:
    """Of each question the positions of its NEAREST passages (or all, if they are fewer), best
    first: int32 [questions, n].

    Kept in `path`, an .npz, for it takes minutes. Raises ValueError when what is kept there is of
    other questions, answers or passages.
    """
    digest = _digest(pool)
    if path.is_file():
        with np.load(path) as kept:
            if str(kept["data"]) != digest:
                raise ValueError(f"{path} was made of other data: take another folder")
            before: Indices = kept["nearest"]
        return before
    model = load_embedding_model(BASE, Runtime())
    read = _embed(model, pool.texts, "passage")
    asked = _embed(model, [question.text for _, question in pool.asked], "query")
    model.close()
    found = np.concatenate(
        [_best(asked[at : at + _BLOCK], read) for at in range(0, len(asked), _BLOCK)]
    )
    whole = path.with_suffix(".new.npz")
    np.savez(whole, nearest=found, data=np.array(digest))
    whole.rename(path)
    return found


def _digest(pool: Pool) -> str:
    """Of all that is learnt from: with another text, question or answer it is another."""
    asked = [(paragraph, question.text, question.answers) for paragraph, question in pool.asked]
    return hashlib.sha256(json.dumps([pool.texts, asked]).encode()).hexdigest()


def pool_in(folder: Path, paragraphs: Sequence[Paragraph]) -> tuple[Pool, Indices]:
    """The pool of the paragraphs and what is nearest in it, kept in the work folder, which is made.

    Raises ValueError as `nearest`.
    """
    pool = pool_of(paragraphs)
    folder.mkdir(parents=True, exist_ok=True)
    near = nearest(pool, folder / _KEPT)
    log.info("%d questions, %d passages", len(pool.asked), len(pool.texts))
    return pool, near


def _embed(model: EmbeddingModel, texts: Sequence[str], input_type: InputType) -> Floats:
    """float32 [len(texts), dimension], of length 1."""
    parts = [texts[at : at + _BLOCK] for at in range(0, len(texts), _BLOCK)]
    with ThreadPoolExecutor(model.streams) as threads:
        return np.concatenate(list(threads.map(lambda part: model.encode(part, input_type), parts)))


def _best(asked: Floats, read: Floats) -> Indices:
    """The columns of the highest products, best first: int32 [len(asked), n]."""
    scores = asked @ read.T
    kth = min(NEAREST, scores.shape[1] - 1)
    best = np.argpartition(-scores, kth, axis=1)[:, :NEAREST]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
    return np.take_along_axis(best, order, axis=1).astype(np.int32)
