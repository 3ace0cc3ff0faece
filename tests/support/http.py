"""The gateway's whole HTTP side over fakes, in memory or on a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.types import ASGIApp
from support.gateway import FakeSearch, FakeStage, Parts

from gateway.admission import Admission, ApiKeys
from gateway.bodies import Bodies
from gateway.health import Health
from gateway.indexing import DocumentResult, Documents, IndexOutcome
from gateway.jobs.job import Job, JobError
from gateway.jobs.journal import Journal
from gateway.jobs.progress import Progress
from gateway.jobs.runner import JobRunner
from gateway.jobs.table import JobLimits
from gateway.middleware import Front, Limits
from gateway.openapi import openapi_document
from gateway.problems import encode
from gateway.protocol import BoundedProtocol
from gateway.routes import build_router
from gateway.routes.collections import CollectionRoutes
from gateway.routes.documents import DocumentRoutes
from gateway.routes.indexing import IndexRoutes
from gateway.routes.jobs import JobRoutes
from gateway.routes.queries import QueryRoutes
from gateway.routes.service import ServiceRoutes
from gateway.search.filters import Filter
from gateway.search.points import no_collection
from gateway.search.types import Chunk, Chunking, CollectionSummary, Document, DocumentSummary, Page
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError


@dataclass
class FakeStore(FakeSearch):
    """One document, `there/it is`."""

    broken: bool = False
    fault: str | None = None
    down: bool = False

    async def ping(self) -> None:
        if self.down:
            raise ServiceError(Reason.VECTOR_DB_UNAVAILABLE, "down")

    async def list_documents(
        self,
        collection: str,
        *,
        limit: int,
        cursor: str | None,
        filter: Filter | None,  # noqa: A002
        deadline: Deadline,
    ) -> Page:
        await self.play(collection=collection, limit=limit, cursor=cursor, where=filter)
        return Page(
            (DocumentSummary("there/it is", 1, {"n": 1}, "2026-01-01T00:00:00Z", "ab"),), None
        )

    async def get_document(
        self, collection: str, document_id: str, deadline: Deadline
    ) -> Document | None:
        if document_id != "there/it is":
            return None
        return Document(
            "there/it is", {"n": 1}, "2026-01-01T00:00:00Z", "ab", "text", (Chunk(0, "text"),)
        )

    async def delete_document(
        self, collection: str, document_id: str, deadline: Deadline
    ) -> int | None:
        return 1 if document_id == "there/it is" else None

    async def collections(self, deadline: Deadline) -> list[CollectionSummary]:
        return [CollectionSummary("documents", self.model, 4, 512, 50, 1, 1)]

    async def delete_collection(self, name: str, deadline: Deadline) -> None:
        if name != "documents":
            raise no_collection(name)

    async def check(self, collection: str, deadline: Deadline) -> None:
        await self.play(collection=collection)

    async def delete_documents(
        self,
        collection: str,
        filter: Filter,  # noqa: A002
        deadline: Deadline,
    ) -> tuple[int, int]:
        await self.play(collection=collection, where=filter, deadline=deadline)
        return 2, 5


class FakeWork(FakeStage):
    """A job that is done at once, or when the gate is open."""

    async def run(self, job: Job, progress: Progress) -> JobError | None:
        await self.play(job=job.id)
        progress.report(job.total, job.total)
        return None

    async def abandon(self, job: Job) -> None:
        self.calls.append({"abandoned": job.id})


class FakeIndexer(FakeStage):
    """Adds everything, in one chunk each."""

    async def index(
        self,
        collection: str,
        documents: Documents,
        chunking: Chunking | None,
        deadline: Deadline,
        born_at: int | None = None,
    ) -> IndexOutcome:
        taken = list(documents)
        await self.play(
            collection=collection, documents=taken, chunking=chunking, deadline=deadline
        )
        return IndexOutcome([DocumentResult(one.id, "added", 1, 0) for one in taken], 1)


@dataclass
class Site:
    """The HTTP side and what it stands on."""

    keys: tuple[str, ...] = ()
    most: int = 10
    budget_s: float = 5
    index_budget_s: float = 50
    body_bytes: int = 1 << 20
    index_body_bytes: int = 1 << 22
    bodies_bytes: int = 1 << 24
    log_queries: bool = True
    parts: Parts = field(default_factory=lambda: Parts(search=FakeStore()))
    indexer: FakeIndexer = field(default_factory=FakeIndexer)
    jobs_dir: Path | None = None
    work: FakeWork = field(default_factory=FakeWork)

    def __post_init__(self) -> None:
        self.admission = Admission(self.most)
        self.admission.open()
        self.parts.metrics.active_requests.set_function(self.admission.inside)
        store = self.parts.search
        assert isinstance(store, FakeStore)
        self.store = store
        self.health = Health(
            store=store,
            ping_cache=None,
            workers={},
            collection="documents",
            vector_dim=4,
            probe_interval_s=0.01,
            version="1.2.3",
            metrics=self.parts.metrics,
        )
        openapi = encode(openapi_document("1.2.3", keyed=bool(self.keys)))
        indexer: Any = self.indexer
        self.journal = None if self.jobs_dir is None else Journal(self.jobs_dir)
        self.jobs = JobRunner(
            self.journal,
            {"index": self.work, "reindex": self.work},
            JobLimits(queued=2, kept=10, spool_bytes=1 << 20, stall_s=60),
            self.parts.metrics,
        )
        self.router = build_router(
            queries=QueryRoutes(self.parts.pipeline),
            indexing=IndexRoutes(indexer, store, self.jobs, store, "documents"),
            documents=DocumentRoutes(store, "documents"),
            jobs=JobRoutes(self.jobs),
            collections=CollectionRoutes(store),
            service=ServiceRoutes(self.health, self.parts.registry, openapi, b"<!doctype html>"),
        )
        self.app: ASGIApp = Front(
            self.router,
            admission=self.admission,
            bodies=Bodies(self.bodies_bytes),
            keys=ApiKeys(self.keys),
            tracing=self.parts.tracing,
            metrics=self.parts.metrics,
            limits=Limits(
                budget_s=self.budget_s,
                budgets_s=dict.fromkeys(("POST /index", "DELETE /documents"), self.index_budget_s),
                body_bytes=self.body_bytes,
                bodies_bytes={"/index": self.index_body_bytes},
                log_queries=self.log_queries,
            ),
        )

    def client(self) -> httpx.AsyncClient:
        """Calls the application in memory."""
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://gateway")


class _Server(uvicorn.Server):
    def install_signal_handlers(self) -> None:
        return


@asynccontextmanager
async def on_a_socket(app: ASGIApp, keep_alive_s: int = 5) -> AsyncIterator[int]:
    """Serves `app` as production does; yields the port."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    config = uvicorn.Config(
        app,
        loop="none",
        http=BoundedProtocol,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=1,
    )
    server = _Server(config)
    task = asyncio.create_task(server._serve([listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
