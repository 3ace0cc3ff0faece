"""GET and DELETE of /documents and of /documents/{id}."""

from __future__ import annotations

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
    DocumentsDeleted,
)
from gateway.exchange import exchange_of
from gateway.problems import Fault, invalid
from gateway.routes.common import json_response, parameters
from gateway.schemas import CollectionParameter, DeleteParameters, DocumentId, ListParameters
from gateway.search.filters import Filter, parse_filter
from gateway.search.types import Document, Page
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

_NOT_EVERYTHING: Final = (
    "Expected at least one condition: without, every document would be deleted. "
    "DELETE /collections/{name} does that"
)


class Documents(Protocol):
    """The part of the store that keeps documents."""

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

    async def delete_documents(
        self,
        collection: str,
        filter: Filter,  # noqa: A002
        deadline: Deadline,
    ) -> tuple[int, int]:
        """Documents deleted, and their chunks."""


class DocumentRoutes:
    """What is indexed: looking at it, taking it out."""

    def __init__(self, documents: Documents, default_collection: str) -> None:
        self._documents = documents
        self._default_collection = default_collection

    async def all(self, request: Request) -> Response:
        """GET or DELETE of documents: one endpoint, so that 405 names both methods."""
        if request.method == "DELETE":
            return await self._delete(request)
        return await self._list(request)

    async def _list(self, request: Request) -> Response:
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

    async def _delete(self, request: Request) -> Response:
        asked = parameters(request, DeleteParameters)
        where = _filter(asked.filter)
        if where is None:
            raise invalid([Fault("filter", _NOT_EVERYTHING)])
        documents, chunks = await self._documents.delete_documents(
            asked.collection or self._default_collection, where, exchange_of(request).deadline
        )
        return json_response(DocumentsDeleted(documents, chunks))

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


def _filter(raw: str | None) -> Filter | None:
    if raw is None:
        return None
    try:
        value = msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise invalid([Fault("filter", "Expected an object as JSON")]) from error
    return parse_filter(value) if value else None


def _document_id(raw: str) -> str:
    if not raw:
        message = (
            "The path names no document. Many clients resolve the segments `.` and `..` before "
            "they send: percent-encode ids that hold them, slashes as %2F"
        )
        raise invalid([Fault("id", message)])
    try:
        return msgspec.convert(raw, DocumentId)
    except msgspec.ValidationError as error:
        raise invalid([Fault("id", "Expected 1 to 256 characters, none of control")]) from error


def _no_document(document_id: str) -> ServiceError:
    return ServiceError(Reason.DOCUMENT_NOT_FOUND, f"No document has the id {document_id!r}.")
