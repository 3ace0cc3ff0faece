"""What the store takes and gives, free of any store's own types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

Mode = Literal["hybrid", "dense", "sparse"]

# Raised whenever points written by an older version could not be read by a newer one.
SCHEMA_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Model:
    """Identity of an embedding model; only `fingerprint` is ever compared."""

    name: str
    fingerprint: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Chunking:
    """How texts are cut: most characters in a chunk, and how many two neighbours share."""

    chunk_size: int
    overlap: int


@dataclass(frozen=True, slots=True)
class Bm25:
    """Parameters of the sparse vectors (Robertson and Zaragoza 2009, equation 3.15).

    average_tokens: the assumed mean length of a chunk in words without stop words, which
        the length normalisation `b` is relative to. Chunks of 512 characters: nDCG@10 on
        Cranfield .500 at 48, .494 at 64, .480 at 256 (BM25 alone).
    """

    k1: float = 1.2
    b: float = 0.75
    average_tokens: float = 48.0
    language: str = "english"


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a generation of a collection was made with, and what it holds.

    model: None while nothing was written.
    chunking: what a request to index gets that names none.
    revision: another one after every change of the collection's content, so that what was
        derived from it can tell that it is out of date.
    generation: its own number.
    next: the generation being built beside it, None if there is none; only what the live
        generation says of it counts, as with the four that follow.
    builder: id of the job that builds it.
    renewed_at: when the builder last said that it lives, in seconds since the epoch.
    switching: `next` is complete: from here on it becomes the live one, whatever happens.
    newest: the highest number that any generation ever had; none is used twice.
    switched_at: when this generation became the live one in place of another, in seconds
        since the epoch; 0 for the first one.
    born_at: when the collection was made, in nanoseconds since the epoch; tells apart two
        collections of one name, of which the first was deleted.
    """

    model: Model | None
    chunking: Chunking
    dimension: int
    bm25: Bm25
    schema_version: int
    revision: int
    generation: int = 1
    next: int | None = None
    builder: str = ""
    renewed_at: int = 0
    switching: bool = False
    newest: int = 1
    switched_at: int = 0
    born_at: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """One generation that a document is to be written to, and what its chunks are made with.

    at: its address, "documents@3".
    chunking: for a document whose request names none.
    """

    at: str
    model: Model
    chunking: Chunking

    @property
    def collection(self) -> str:
        """The collection's name, which is the address of its live generation."""
        return self.at.partition("@")[0]


@dataclass(frozen=True, slots=True)
class CollectionSummary:
    """A collection as callers see it; model None: nothing was ever written.

    chunks: those of versions just replaced are counted until they are removed.
    """

    name: str
    model: Model | None
    dimension: int
    chunk_size: int
    overlap: int
    documents: int
    chunks: int


@dataclass(frozen=True, slots=True)
class Hit:
    """One passage found.

    score: 0..1, never increasing down a list of hits.
    dense: cosine of question and passage; None if the stage did not run or did not find it.
    sparse: BM25 score; None likewise.
    """

    chunk_id: str  # "document_id#ordinal"
    document_id: str
    ordinal: int
    text: str
    score: float
    dense: float | None
    sparse: float | None
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a document, as it was cut."""

    ordinal: int
    text: str


@dataclass(frozen=True, slots=True)
class DocumentSummary:
    """A document without its text. `indexed_at` is RFC 3339 in UTC."""

    id: str
    chunks: int
    metadata: dict[str, Any]
    indexed_at: str
    content_sha256: str


@dataclass(frozen=True, slots=True)
class Document:
    """A document with its source text and its chunks in order."""

    id: str
    metadata: dict[str, Any]
    indexed_at: str
    content_sha256: str
    text: str
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Some documents, and where the next page begins (None: this was the last)."""

    documents: tuple[DocumentSummary, ...]
    next_cursor: str | None
