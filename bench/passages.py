"""Texts of the lengths that an index holds: the Rust book, cut as the gateway cuts it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Final

from bench.datasets import rust_book
from gateway.chunking import cut
from gateway.search.types import Chunking

CHUNK_SIZE: Final = 512
OVERLAP: Final = 50
SEED: Final = 3


def passages(data: Path, count: int) -> list[str]:
    """`count` chunks of the book in an order drawn once and for all: any slice has the same mix.

    More than the book has (3,682) begin again. Raises ValueError for an empty book.
    """
    chunking = Chunking(chunk_size=CHUNK_SIZE, overlap=OVERLAP)
    chunks = [chunk for document in rust_book(data) for chunk in cut(document.text, chunking)]
    if not chunks:
        raise ValueError(f"the book in {data} has no text")
    random.Random(SEED).shuffle(chunks)
    return [chunks[index % len(chunks)] for index in range(count)]
