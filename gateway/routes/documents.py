"""POST /index, GET /documents, GET and DELETE /documents/{id}."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any, Final, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.answers import (
    ChunkItem,
    Deleted,
    DocumentDetail,
    DocumentItem,
    DocumentList,
    IndexedDocument,
    IndexResponse,
)
from gateway.decoding import BodyDecoder
from gateway.exchange import Exchange, exchange_of
from gateway.indexing import Indexer, NewDocument
from gateway.problems import Fault, invalid
from gateway.routes.common import json_response, no_parameters, parameters, read_json
from gateway.schemas import CollectionParameter, DocumentId, IndexRequest, ListParameters
from gateway.search.filters import Filter, parse_filter
from gateway.search.types import Chunking, Document, Page, Stamp
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

_INDEX: Final = BodyDecoder(IndexRequest)
# Checking a MiB of documents takes up to 0.1 s (metadata of numbers): more leaves the event loop.
LARGE_BODY_BYTES: Final = 1 << 20
# Namespace of the ids of documents that came without one; it never changes.
_TEXTS: Final = uuid.UUID("6f0d9f2e-58a3-5d0b-9a55-0c4b6c1f7a11")


class Documents(Protocol):
    """The part of the store that keeps documents."""

    async def stamp(self, collection: str, deadline: Deadline) -> Stamp:
        """What the collection was made with."""

    async def list_documents(
        self,
        collection: str,
        *,
        limit: int,
        cursor: str | None,
        filter: Filter | None,  # noqa: A002
        deadline: Deadline,
    ) -> Page:
        """One page."""

    async def get_document(
        self, collection: str, document_id: str, deadline: Deadline
    ) -> Document | None:
        """A document; None if there is none."""

    async def delete_document(
        self, collection: str, document_id: str, deadline: Deadline
    ) -> int | None:
        """Chunks deleted; None if there was no document."""


class DocumentRoutes:
    """What is indexed: putting it in, looking at it, taking it out."""

    def __init__(self, indexer: Indexer, documents: Documents, default_collection: str) -> None:
        self._indexer = indexer
        self._documents = documents
        self._default_collection = default_collection

    async def index(self, request: Request) -> Response:
        """Indexes documents; answers when everything is durable."""
        no_parameters(request)
        exchange = exchange_of(request)
        if exchange.body_bytes > LARGE_BODY_BYTES:
            ask, documents = await asyncio.to_thread(_read_index, exchange)
        else:
            ask, documents = _read_index(exchange)
        collection = ask.collection or self._default_collection
        chunking = await self._chunking(ask, collection, exchange.deadline)
        outcome = await self._indexer.index(collection, documents, chunking, exchange.deadline)
        results = [
            IndexedDocument(one.id, one.status, one.chunks, one.truncated_chunks)
            for one in outcome.results
        ]
        return json_response(
            IndexResponse(
                indexed=len(results),
                chunks=sum(one.chunks for one in results),
                results=results,
                latency_ms=exchange.elapsed_ms(),
            )
        )

    async def list(self, request: Request) -> Response:
        """One page of documents."""
        asked = parameters(request, ListParameters)
        page = await self._documents.list_documents(
            asked.collection or self._default_collection,
            limit=asked.limit,
            cursor=asked.cursor,
            filter=_filter(asked.filter),
            deadline=exchange_of(request).deadline,
        )
        items = [
            DocumentItem(
                id=one.id,
                chunks=one.chunks,
                metadata=one.metadata,
                indexed_at=one.indexed_at,
                content_sha256=one.content_sha256,
            )
            for one in page.documents
        ]
        return json_response(DocumentList(items, page.next_cursor))

    async def one(self, request: Request) -> Response:
        """GET or DELETE of one document: one endpoint, so that 405 names both methods."""
        asked = parameters(request, CollectionParameter)
        collection = asked.collection or self._default_collection
        document_id = _document_id(request.path_params["id"])
        deadline = exchange_of(request).deadline
        if request.method == "DELETE":
            chunks = await self._documents.delete_document(collection, document_id, deadline)
            if chunks is None:
                raise _no_document(document_id)
            return json_response(Deleted(deleted=True, chunks=chunks))
        found = await self._documents.get_document(collection, document_id, deadline)
        if found is None:
            raise _no_document(document_id)
        return json_response(
            DocumentDetail(
                id=found.id,
                text=found.text,
                chunks=[ChunkItem(chunk.ordinal, chunk.text) for chunk in found.chunks],
                metadata=found.metadata,
                indexed_at=found.indexed_at,
                content_sha256=found.content_sha256,
            )
        )

    async def _chunking(
        self, ask: IndexRequest, collection: str, deadline: Deadline
    ) -> Chunking | None:
        """What the request names, completed by the collection's own; None if it names nothing."""
        if ask.chunk_size is None and ask.overlap is None:
            return None
        own = (await self._documents.stamp(collection, deadline)).chunking
        chunk_size = own.chunk_size if ask.chunk_size is None else ask.chunk_size
        overlap = own.overlap if ask.overlap is None else ask.overlap
        if overlap >= chunk_size:
            message = f"Expected less than `chunk_size`, {overlap} is not below {chunk_size}"
            raise invalid([Fault("overlap", message)])
        return Chunking(chunk_size, overlap)


def _read_index(exchange: Exchange) -> tuple[IndexRequest, list[NewDocument]]:
    """The request and its documents. Raises HttpError for all that is wrong with it."""
    ask = read_json(exchange, _INDEX)
    return ask, _new_documents(ask)


def _new_documents(ask: IndexRequest) -> list[NewDocument]:
    """The documents under their ids. Raises HttpError when two have the same."""
    first: dict[str, int] = {}
    faults: list[Fault] = []
    documents: list[NewDocument] = []
    for position, given in enumerate(ask.documents):
        document_id = str(uuid.uuid5(_TEXTS, given.text)) if given.id is None else given.id
        if (other := first.setdefault(document_id, position)) != position:
            field = f"documents[{position}].{'text' if given.id is None else 'id'}"
            faults.append(Fault(field, f"The same id as documents[{other}]"))
        documents.append(NewDocument(document_id, given.text, given.metadata or {}))
    if faults:
        raise invalid(faults[:100])
    return documents


def _filter(raw: str | None) -> Filter | None:
    if raw is None:
        return None
    try:
        value = msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise invalid([Fault("filter", "Expected an object as JSON")]) from error
    return parse_filter(value) if value else None


def _document_id(raw: str) -> str:
    try:
        return msgspec.convert(raw, DocumentId)
    except msgspec.ValidationError as error:
        raise invalid([Fault("id", "Expected 1 to 256 characters, none of control")]) from error


def _no_document(document_id: str) -> ServiceError:
    return ServiceError(Reason.DOCUMENT_NOT_FOUND, f"No document has the id {document_id!r}.")
