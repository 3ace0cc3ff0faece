"""Any number of documents out of a few thousand passages that were really embedded.

A chunk is the beginning of one passage and the end of another. Its vector is that mixture of
the two passages' vectors, with noise: as near to its neighbours as real chunks are, and nothing
has to be embedded. The same number always gives the same document.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.datasets import COLLECTIONS, load
from bench.passages import CHUNK_SIZE, OVERLAP, passages
from bench.vectors import Floats
from gateway.chunking import cut
from gateway.search.types import Chunking
from gateway.search.versions import NewChunk, NewVersion
from gateway.text import text_sha256

SEED: Final = 4
CHUNKS_A_DOCUMENT: Final = 10
# A document belongs to one of these teams, by its number, and stands on the shelf of the same
# name: a filter keeps one in twenty.
TEAMS: Final = 20
# Of the noise, beside a mixture of length 0.7 to 1.
NOISE: Final = 0.25
CHUNKING: Final = Chunking(chunk_size=CHUNK_SIZE, overlap=OVERLAP)


def base_passages(data: Path, count: int) -> list[str]:
    """`count` passages, of the book and the three collections in turn, at most as many as are."""
    sources = [
        [chunk for document in load(data, name).documents for chunk in cut(document.text, CHUNKING)]
        for name in COLLECTIONS
    ]
    mixed = itertools.chain.from_iterable(zip(passages(data, count), *sources, strict=False))
    return list(itertools.islice(mixed, count))


class Corpus:
    """Documents 0, 1, 2, ... of CHUNKS_A_DOCUMENT chunks.

    vectors: float32 [passages, dimension], of length 1, a row for each passage.
    """

    def __init__(self, texts: Sequence[str], vectors: Floats) -> None:
        self._texts = texts
        self._base = vectors

    def document(self, number: int) -> NewVersion:
        """The document, as if it had been cut and embedded."""
        first, second, shares, vectors = self._drawn(number)
        texts = [self._mixed(*parts) for parts in zip(first, second, shares.tolist(), strict=True)]
        chunks = [
            NewChunk(text, text_sha256(text), vector.tobytes(), False)
            for text, vector in zip(texts, vectors, strict=True)
        ]
        whole = "\n".join(texts)
        return NewVersion(
            document_id(number),
            whole,
            {"team": team_of(number), "shelf": team_of(number)},
            text_sha256(whole),
            CHUNKING,
            chunks,
        )

    def vectors(self, number: int) -> Floats:
        """float32 [CHUNKS_A_DOCUMENT, dimension]: those of the document's chunks."""
        return self._drawn(number)[3]

    def _drawn(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats, Floats]:
        """Of each chunk: first passage, second passage, the first one's share, the vector."""
        rng = np.random.default_rng((SEED, number))
        first, second = rng.integers(0, len(self._texts), (2, CHUNKS_A_DOCUMENT))
        shares = rng.uniform(0.5, 1, CHUNKS_A_DOCUMENT).astype(np.float32)
        weights = shares[:, None]
        dimension = self._base.shape[1]
        noise = rng.standard_normal((CHUNKS_A_DOCUMENT, dimension), np.float32)
        mixed = weights * self._base[first] + (1 - weights) * self._base[second]
        mixed += (NOISE / dimension**0.5) * noise
        mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
        return first, second, shares, mixed

    def _mixed(self, first: int, second: int, share: float) -> str:
        head, tail = self._texts[first], self._texts[second]
        return f"{head[: int(share * len(head))]} {tail[int(share * len(tail)) :]}"


def document_id(number: int) -> str:
    """Of the document of this number."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"document {number}"))


def team_of(number: int) -> str:
    """The document's team, which filters ask for."""
    return f"team-{number % TEAMS}"


class Nearest:
    """The chunks that are really nearest to some questions, by comparing them with all.

    questions: float32 [questions, dimension].
    """

    def __init__(self, questions: Floats, most: int) -> None:
        self._questions = questions
        self._most = most
        self._scores = np.empty((len(questions), 0), np.float32)
        self._ids: list[list[str]] = [[] for _ in questions]

    def add(self, ids: Sequence[str], vectors: Floats) -> None:
        """Compares the questions with some more chunks, a row of `vectors` each."""
        scores = np.concatenate([self._scores, self._questions @ vectors.T], axis=1)
        kept = np.argsort(-scores, axis=1, kind="stable")[:, : self._most]
        known = self._scores.shape[1]
        self._ids = [
            [old[at] if at < known else ids[at - known] for at in row]
            for old, row in zip(self._ids, kept.tolist(), strict=True)
        ]
        self._scores = np.take_along_axis(scores, kept, axis=1)

    def recall(self, found: Sequence[Sequence[str]]) -> float:
        """Mean share of the nearest chunks that were found, question by question."""
        shares = [
            len(set(real).intersection(those)) / len(real)
            for real, those in zip(self._ids, found, strict=True)
        ]
        return float(np.mean(shares))
