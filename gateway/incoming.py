"""The body of POST /index: checked whole, kept as it was sent, decoded document by document.

A body is never decoded at once. What is held of it is the bytes that came, each document's
until it has been given away; and nothing here keeps the event loop for longer than one
document takes.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from gateway.decoding import MAX_EXPLAINED_BYTES, BodyDecoder
from gateway.indexing import Documents, NewDocument
from gateway.problems import Fault, HttpError, invalid
from gateway.schemas import MAX_DOCUMENTS, DocumentInput, IndexRequest
from gateway.splitter import Splitter

# Namespace of the ids of documents that came without one; it never changes.
_TEXTS: Final = uuid.UUID("6f0d9f2e-58a3-5d0b-9a55-0c4b6c1f7a11")
_REQUEST: Final = BodyDecoder(IndexRequest)
_DOCUMENT: Final = BodyDecoder(DocumentInput)
# Looked through at once, in 0.5 ms.
PIECE_BYTES: Final = 64 * 1024
# Longest without letting others have the event loop, but for a single document.
TURN_S: Final = 0.002
_PLACEHOLDER: Final = b'{"text":"-"}'


@dataclass(frozen=True, slots=True)
class Incoming:
    """ask: the request, one meaningless document in place of all; documents: those it has."""

    ask: IndexRequest
    documents: Documents


async def read_documents(parts: deque[bytes]) -> Incoming:
    """The request in the parts of a body, which are taken from the queue.

    Raises HttpError MALFORMED_JSON, or INVALID_ARGUMENT: with every fault by its field if the
    body is small, else with the first one.
    """
    small = sum(map(len, parts)) <= MAX_EXPLAINED_BYTES
    copy = b"".join(parts) if small else b""
    try:
        return await _read(parts)
    except HttpError:
        if small:
            _REQUEST.decode(copy)  # which tells all that is wrong with it
        raise


async def _read(parts: deque[bytes]) -> Incoming:
    splitter = Splitter("documents", most_elements=MAX_DOCUMENTS, placeholder=_PLACEHOLDER)
    checked = _Checked()
    turn_s = time.perf_counter()
    while parts:
        part = parts.popleft()
        for start in range(0, len(part), PIECE_BYTES):
            for raw in splitter.feed(part[start : start + PIECE_BYTES]):
                checked.add(raw)
                if time.perf_counter() - turn_s > TURN_S:
                    await asyncio.sleep(0)
                    turn_s = time.perf_counter()
            if time.perf_counter() - turn_s > TURN_S:
                await asyncio.sleep(0)
                turn_s = time.perf_counter()
    return Incoming(_REQUEST.decode(splitter.frame), checked.documents())


class _Checked:
    """Documents that nothing is wrong with, as they were sent."""

    def __init__(self) -> None:
        self._raw: deque[bytes] = deque()
        self._characters: list[int] = []
        self._positions: dict[str, int] = {}

    def add(self, raw: bytes) -> None:
        """Checks a document. Raises HttpError for the first thing that is wrong with it."""
        position = len(self._raw)
        place = f"documents[{position}]"
        given = _DOCUMENT.decode(raw, place)
        document_id = _id(given)
        other = self._positions.setdefault(document_id, position)
        if other != position:
            field = f"{place}.{'text' if given.id is None else 'id'}"
            raise invalid([Fault(field, f"The same id as documents[{other}]")])
        self._characters.append(len(given.text))
        self._raw.append(raw)

    def documents(self) -> Documents:
        """All of them; this object is not to be used any more."""
        return Documents(self._characters, _given_away(self._raw))


def _given_away(raw: deque[bytes]) -> Iterator[NewDocument]:
    while raw:
        given = msgspec.json.decode(raw.popleft(), type=DocumentInput)
        yield NewDocument(_id(given), given.text, given.metadata or {})


def _id(given: DocumentInput) -> str:
    return str(uuid.uuid5(_TEXTS, given.text)) if given.id is None else given.id
