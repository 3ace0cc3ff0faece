"""A document made ready for one generation of its collection: cut and embedded."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol

from gateway.batches import Batches, Vector
from gateway.cache.vectors import Embedder
from gateway.chunking import cut
from gateway.search.points import at
from gateway.search.search import Search
from gateway.search.types import Chunking, Model, Target
from gateway.search.versions import NewChunk, NewVersion
from gateway.text import normalise, text_sha256
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

# For what the next generation holds of a document: it answers nothing while it is optimised,
# and what it would save is one call to the embedder.
LOOK_S: Final = 1.0


class Given(Protocol):
    """A document as it was given."""

    @property
    def id(self) -> str:
        """Chosen by the caller, or made from the text."""

    @property
    def text(self) -> str:
        """Plain text or Markdown."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Kept with the document."""


class Preparer:
    """Cuts documents and embeds what is new of them; texts of all go into common calls.

    batch_size: most texts in one call to the embedder.
    """

    def __init__(self, search: Search, embedder: Embedder, *, batch_size: int) -> None:
        self._search = search
        self._embedder = embedder
        self._batches = Batches(embedder, batch_size)

    async def aclose(self) -> None:
        """Ends the calls under way."""
        await self._batches.aclose()

    async def model(self, deadline: Deadline) -> Model:
        """The model that a rebuild is to use. Raises what the embedder raises."""
        identity = await self._embedder.next_model(deadline)
        return Model(identity.name, identity.fingerprint, identity.dimension)

    async def prepare(self, document: Given, target: Target, deadline: Deadline) -> NewVersion:
        """The document cut by `target.chunking` and embedded by `target.model`.

        What the document's version in that generation has embedded already is taken from
        there, and from its live one where that has the same model.
        Raises what the store and the embedder raise.
        """
        sha256, chunks, normalised = await asyncio.to_thread(_cut, document.text, target.chunking)
        vectors = await self._known(document.id, target, set(normalised), deadline)
        missing = {key: text for key, text in normalised.items() if key not in vectors}
        made = await self._batches.embed(list(missing.values()), target.model.fingerprint, deadline)
        vectors.update(zip(missing, made, strict=True))
        return NewVersion(
            document.id,
            document.text,
            dict(document.metadata),
            sha256,
            target.chunking,
            [NewChunk(text, key, *vectors[key]) for text, key in chunks],
        )

    async def _known(
        self, document_id: str, target: Target, wanted: set[str], deadline: Deadline
    ) -> dict[str, Vector]:
        """Vectors there are already: by hash of the text."""
        live = await self._search.stamp(target.collection, deadline)
        address = at(target.collection, live.generation)
        if address == target.at:
            return await self._held(address, document_id, deadline)
        known: dict[str, Vector] = {}
        if live.model is not None and live.model.fingerprint == target.model.fingerprint:
            known = await self._held(address, document_id, deadline)
        if not wanted <= known.keys():
            known |= await self._held_beside(target.at, document_id, deadline)
        return known

    async def _held_beside(
        self, address: str, document_id: str, deadline: Deadline
    ) -> dict[str, Vector]:
        """What a generation that is being built holds, if it says so soon."""
        try:
            return await self._held(address, document_id, deadline.sooner(LOOK_S))
        except ServiceError as error:
            if error.reason is not Reason.DEADLINE_EXCEEDED:
                raise
            deadline.share_s()
            return {}

    async def _held(self, address: str, document_id: str, deadline: Deadline) -> dict[str, Vector]:
        record = await self._search.record(address, document_id, deadline)
        if record is None:
            return {}
        return await self._search.vectors(address, record, deadline)


def _cut(text: str, chunking: Chunking) -> tuple[str, list[tuple[str, str]], dict[str, str]]:
    """Hash of the text; its chunks, each with the hash of what is embedded; and that by hash."""
    chunks: list[tuple[str, str]] = []
    normalised: dict[str, str] = {}
    for chunk in cut(text, chunking):
        plain = normalise(chunk)
        key = text_sha256(plain)
        normalised[key] = plain
        chunks.append((chunk, key))
    return text_sha256(text), chunks, normalised
