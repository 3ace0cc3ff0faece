"""A few made-up paragraphs and tiny models to train on them, in seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from support.models import tiny_encoder

from training.nearest import Indices, Pool, pool_of
from training.squad import Paragraph, Question

if TYPE_CHECKING:
    from training.cross_encoder import CrossEncoder
    from training.late_interaction import LateInteraction
    from training.reader import Reader

T = TypeVar("T")
_COLOURS = ("red", "green", "blue", "white", "black", "brown", "grey", "pink")
_TOWNS = ("Oslo", "Rome", "Bonn", "Lyon", "Bern", "Turin", "Kyoto", "Lima")


def paragraphs(articles: int = 4, each: int = 8) -> list[Paragraph]:
    """Houses and their colours: a question each, with one word as its answer."""
    return [
        Paragraph(
            f"Article {article}",
            f"The house of {_TOWNS[at % 8]} in street {article} is {_COLOURS[(article + at) % 8]}.",
            (
                Question(
                    f"{article}/{at}",
                    f"What colour has the house of {_TOWNS[at % 8]}?",
                    (_COLOURS[(article + at) % 8],),
                ),
            ),
        )
        for article in range(articles)
        for at in range(each)
    ]


def pool_and_near(given: list[Paragraph]) -> tuple[Pool, Indices]:
    """Of each question the passages in a fixed order: no model is asked which are like it."""
    pool = pool_of(given)
    order = np.arange(len(pool.texts), dtype=np.int32)
    return pool, np.stack([np.roll(order, at) for at in range(len(pool.asked))])


def tiny_reader(folder: Path, *, seed: int = 0) -> Reader:
    """Two layers of 32 over random weights; 64 tokens."""
    from training.reader import Reader, pair_tokenizer

    return _drawn(lambda base: Reader(base, pair_tokenizer(64), rank=4), folder, seed)


def tiny_late_interaction(folder: Path, *, seed: int = 0) -> LateInteraction:
    """Two layers of 32 over random weights; 64 tokens."""
    from training.late_interaction import LateInteraction
    from training.lora import tokenizer_of

    return _drawn(lambda base: LateInteraction(base, tokenizer_of(base, 64), rank=4), folder, seed)


def tiny_cross_encoder(folder: Path, *, seed: int = 0) -> CrossEncoder:
    """Two layers of 32 over random weights; 64 tokens."""
    from training.cross_encoder import CrossEncoder
    from training.lora import tokenizer_of

    return _drawn(lambda base: CrossEncoder(base, tokenizer_of(base, 64), rank=4), folder, seed)


def _drawn(make: Callable[[Path], T], folder: Path, seed: int) -> T:
    """make: of the base's folder, which is made when it is not there."""
    import torch

    base = folder / "base"
    if not base.is_dir():
        tiny_encoder(folder)
    torch.manual_seed(seed)
    return make(base)
