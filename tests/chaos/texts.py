"""Documents made up by chance, of which every chunk names its document."""

from __future__ import annotations

import random
from dataclasses import replace

from chaos.ledger import Content

from gateway.search.types import Chunking

# Shorter than the smallest chunk, so that every chunk holds a whole line, and with it the token.
_WORDS = ("amber", "basalt", "cedar", "delta", "ember", "fjord", "garnet", "harbor", "indigo")
_CHUNKINGS = (None, None, None, Chunking(64, 0), Chunking(128, 30), Chunking(300, 20))
_MOST_LINES = 40


def token(document_id: str) -> str:
    """A word that stands in every chunk of this document and in no other."""
    return document_id.replace("/", "x")


def metadata(document_id: str, mark: int) -> dict[str, object]:
    """The metadata that goes with a content."""
    return {"doc": document_id, "mark": mark}


def fresh(rng: random.Random, document_id: str, mark: int, *, own_chunking: bool = True) -> Content:
    """A content that was never there; now and then with a chunking of its own."""
    lines = [_line(rng, document_id, mark, n) for n in range(rng.randint(1, _MOST_LINES))]
    chunking = rng.choice(_CHUNKINGS)
    return Content("\n\n".join(lines), mark, chunking if own_chunking else None)


def edited(rng: random.Random, document_id: str, mark: int, before: Content) -> Content:
    """`before` with one line changed: most of its chunks stay what they are."""
    lines = before.text.split("\n\n")
    lines[rng.randrange(len(lines))] = _line(rng, document_id, mark, len(lines))
    return replace(before, text="\n\n".join(lines), mark=mark)


def marked(mark: int, before: Content) -> Content:
    """`before` under other metadata: nothing is to be embedded."""
    return replace(before, mark=mark)


def _line(rng: random.Random, document_id: str, mark: int, number: int) -> str:
    return f"{token(document_id)} m{mark}n{number} {' '.join(rng.sample(_WORDS, 3))}."
