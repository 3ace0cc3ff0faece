"""POST /index and POST /reindex: what writes many documents, at once or as a job."""

from __future__ import annotations

from typing import Final, Protocol

from starlette.requests import Request
from starlette.responses import Response

from gateway.answers import IndexedDocument, IndexResponse, JobAccepted
from gateway.decoding import BodyDecoder
from gateway.exchange import Exchange, exchange_of
from gateway.incoming import read_documents
from gateway.indexing import Documents, Indexer, check_sizes
from gateway.jobs.job import Job
from gateway.jobs.runner import JobRunner
from gateway.jobs.table import NewJob
from gateway.problems import Fault, invalid
from gateway.routes.common import (
    check_content_type,
    json_response,
    no_parameters,
    parameters,
    read_json,
)
from gateway.schemas import IndexParameters, IndexRequest, ReindexRequest
from gateway.search.collections import DEFAULT_CHUNKING
from gateway.search.types import Chunking, Stamp
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

_REINDEX: Final = BodyDecoder(ReindexRequest)


class Stamped(Protocol):
    """The part of the store that knows how collections were made."""

    async def stamp(self, collection: str, deadline: Deadline) -> Stamp:
        """What the collection was made with. Raises ServiceError COLLECTION_NOT_FOUND."""


class Rebuilder(Protocol):
    """The part of `reindexing.Reindexer` that is asked before a job is taken."""

    async def check(self, collection: str, deadline: Deadline) -> None:
        """Raises at once what cannot be."""


class IndexRoutes:
    """Documents in, and collections made anew from them."""

    def __init__(
        self,
        indexer: Indexer,
        rebuilder: Rebuilder,
        jobs: JobRunner,
        collections: Stamped,
        default_collection: str,
    ) -> None:
        self._indexer = indexer
        self._rebuilder = rebuilder
        self._jobs = jobs
        self._collections = collections
        self._default_collection = default_collection

    async def index(self, request: Request) -> Response:
        """Indexes documents; answers when everything is durable, or a job to index them is."""
        asked = parameters(request, IndexParameters)
        exchange = exchange_of(request)
        if not asked.wait:
            self._jobs.check()
        check_content_type(exchange)
        incoming = await read_documents(exchange.body)
        ask, documents = incoming.ask, incoming.documents
        collection = ask.collection or self._default_collection
        chunking = await self._chunking(ask, collection, exchange.deadline)
        if not asked.wait:
            return await self._later(exchange, collection, documents, chunking)
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

    async def reindex(self, request: Request) -> Response:
        """Takes a job that rebuilds a collection."""
        no_parameters(request)
        self._jobs.check()
        exchange = exchange_of(request)
        # `curl -X POST` alone: every field has a default.
        empty = not exchange.body_bytes and b"content-type" not in exchange.headers
        ask = ReindexRequest() if empty else read_json(exchange, _REINDEX)
        collection = ask.collection or self._default_collection
        await self._collections.stamp(collection, exchange.deadline)
        chunking = await self._chunking(ask, collection, exchange.deadline)
        await self._rebuilder.check(collection, exchange.deadline)
        return _accepted(await self._jobs.submit(NewJob("reindex", collection, chunking)))

    async def _later(
        self,
        exchange: Exchange,
        collection: str,
        documents: Documents,
        chunking: Chunking | None,
    ) -> Response:
        """Takes a job that indexes the documents, once /index would have taken them."""
        own = chunking or await self._own(collection, exchange.deadline)
        check_sizes(documents.characters, own)
        new = NewJob("index", collection, chunking, exchange.body_bytes)
        return _accepted(await self._jobs.submit(new, documents))

    async def _chunking(
        self, ask: IndexRequest | ReindexRequest, collection: str, deadline: Deadline
    ) -> Chunking | None:
        """What the request names, completed by the collection's own; None if it names nothing."""
        if ask.chunk_size is None and ask.overlap is None:
            return None
        own = await self._own(collection, deadline)
        chunk_size = own.chunk_size if ask.chunk_size is None else ask.chunk_size
        overlap = own.overlap if ask.overlap is None else ask.overlap
        if overlap >= chunk_size:
            message = f"Expected less than `chunk_size` ({chunk_size}), got {overlap}"
            raise invalid([Fault("overlap", message)])
        return Chunking(chunk_size, overlap)

    async def _own(self, collection: str, deadline: Deadline) -> Chunking:
        """The collection's chunking, or what it will get when it is made."""
        try:
            return (await self._collections.stamp(collection, deadline)).chunking
        except ServiceError as error:
            if error.reason != Reason.COLLECTION_NOT_FOUND:
                raise
            return DEFAULT_CHUNKING


def _accepted(job: Job) -> Response:
    response = json_response(JobAccepted(job.id), 202)
    response.headers["Location"] = f"/jobs/{job.id}"
    return response
