"""GET /collections, DELETE /collections/{name}."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.answers import CollectionDeleted, CollectionItem, CollectionList, CollectionModel
from gateway.exchange import exchange_of
from gateway.problems import Fault, invalid
from gateway.routes.common import json_response, no_parameters
from gateway.schemas import Collection, in_words
from gateway.search.types import CollectionSummary
from runtime.deadline import Deadline


class Collections(Protocol):
    """The part of the store that keeps collections."""

    async def collections(self, deadline: Deadline) -> Sequence[CollectionSummary]:
        """All of them, by their names."""

    async def delete_collection(self, name: str, deadline: Deadline) -> None:
        """Raises ServiceError COLLECTION_NOT_FOUND."""


class CollectionRoutes:
    """Collections: looking at them and deleting them. The first /index makes one."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections

    async def list(self, request: Request) -> Response:
        """All collections, with what they were made with and what they hold."""
        no_parameters(request)
        found = await self._collections.collections(exchange_of(request).deadline)
        return json_response(CollectionList([_item(one) for one in found]))

    async def one(self, request: Request) -> Response:
        """DELETE of one collection with everything in it."""
        no_parameters(request)
        name = _name(request.path_params["name"])
        await self._collections.delete_collection(name, exchange_of(request).deadline)
        return json_response(CollectionDeleted(deleted=True))


def _item(one: CollectionSummary) -> CollectionItem:
    model = None if one.model is None else CollectionModel(one.model.name, one.model.fingerprint)
    return CollectionItem(
        name=one.name,
        model=model,
        dimension=one.dimension,
        chunk_size=one.chunk_size,
        overlap=one.overlap,
        documents=one.documents,
        chunks=one.chunks,
    )


def _name(raw: str) -> str:
    try:
        return msgspec.convert(raw, Collection)
    except msgspec.ValidationError as error:
        raise invalid([Fault("name", in_words(str(error)))]) from error
