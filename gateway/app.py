"""The composition root: every part of the gateway is made and joined here, and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import grpc
from starlette.types import ASGIApp

from gateway.admission import Admission, ApiKeys
from gateway.bodies import BODIES_TOGETHER, Bodies
from gateway.cache.redis_tier import RedisTier
from gateway.cache.vectors import VectorCache
from gateway.clients import (
    EMBEDDER_SERVICE,
    GENERATOR_SERVICE,
    RERANKER_SERVICE,
    EmbedderClient,
    GeneratorClient,
    RerankerClient,
)
from gateway.embedders import Embedders
from gateway.health import EMBEDDERS, Health, Modelled, Worker, WorkerName
from gateway.indexing import Indexer
from gateway.jobs.journal import Journal
from gateway.jobs.progress import Clock
from gateway.jobs.pulse import PulseEmbedder
from gateway.jobs.runner import JobRunner
from gateway.jobs.table import JobLimits
from gateway.jobs.work import IndexWork, ReindexWork
from gateway.metrics import GatewayMetrics
from gateway.middleware import Front, Limits
from gateway.openapi import docs_page, openapi_document
from gateway.pipeline import Pipeline, Policy
from gateway.preparing import Preparer
from gateway.problems import encode
from gateway.reindexing import Reindexer
from gateway.routes import build_router
from gateway.routes.collections import CollectionRoutes
from gateway.routes.documents import DocumentRoutes
from gateway.routes.indexing import IndexRoutes
from gateway.routes.jobs import JobRoutes
from gateway.routes.queries import QueryRoutes
from gateway.routes.service import ServiceRoutes
from gateway.search.search import Search, open_search
from gateway.settings import GatewaySettings
from runtime.channel import open_channel
from runtime.metrics import new_registry
from runtime.telemetry import Tracing, open_tracing

# Where no documents are sent: the longest question, every character escaped, takes 100 KiB.
SMALL_BODY_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the process runs and stops."""

    asgi: ASGIApp
    admission: Admission
    health: Health
    search: Search
    jobs: JobRunner

    async def run(self) -> None:
        """Opens the store, lets requests in, keeps the picture of health and runs the jobs,
        until cancelled.

        Raises what `Search.start` does; a server that is not there yet it waits for by itself.
        """
        await self.search.start()
        await self.jobs.start()
        self.admission.open()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.health.watch())
            tasks.create_task(self.jobs.run())


@asynccontextmanager
async def open_gateway(settings: GatewaySettings) -> AsyncIterator[Gateway]:
    """The gateway, to be run; on the way out the store is flushed and everything closed."""
    async with AsyncExitStack() as stack:
        registry = new_registry()
        metrics = GatewayMetrics(registry)
        tracing = open_tracing("gateway")
        stack.callback(tracing.close)

        channels = _channels(settings, tracing)
        for channel in channels.values():
            stack.push_async_callback(channel.close, None)
        embedders = {name: EmbedderClient(channels[name]) for name in EMBEDDERS if name in channels}
        reranker = RerankerClient(channels["reranker"])
        modelled: dict[WorkerName, Modelled] = {**embedders, "reranker": reranker}

        search = open_search(settings)
        stack.push_async_callback(search.aclose)
        redis = _redis(settings)
        vectors = VectorCache(
            Embedders(*embedders.values()),
            size=settings.cache_size,
            redis=redis,
            budget_s=settings.request_timeout_seconds,
            metrics=metrics,
        )
        stack.push_async_callback(vectors.aclose)

        pipeline = Pipeline(
            vectors=vectors,
            search=search,
            reranker=reranker,
            generator=GeneratorClient(channels["generator"]),
            policy=_policy(settings),
            metrics=metrics,
            tracing=tracing,
        )
        health = Health(
            store=search,
            ping_cache=redis.ping if redis is not None else None,
            workers={
                name: Worker(channel, modelled.get(name)) for name, channel in channels.items()
            },
            collection=settings.qdrant_collection,
            vector_dim=settings.vector_dim,
            probe_interval_s=settings.probe_interval_seconds,
            version=_version(),
            metrics=metrics,
        )
        openapi = encode(openapi_document(_version(), keyed=bool(settings.keys())))
        admission = Admission(settings.max_connections)
        metrics.active_requests.set_function(admission.inside)
        # Those of the jobs are their own, so that the jobs' signs of life are, too.
        pulse = PulseEmbedder(vectors)
        bulk = Indexer(search, pulse, batch_size=settings.embedding_batch_size)
        preparer = Preparer(search, pulse, batch_size=settings.embedding_batch_size)
        stack.push_async_callback(preparer.aclose)
        reindexer = Reindexer(search, preparer)
        jobs = _jobs(settings, bulk, reindexer, pulse, metrics)
        stack.push_async_callback(jobs.aclose)
        front = Front(
            build_router(
                queries=QueryRoutes(pipeline),
                indexing=IndexRoutes(
                    Indexer(search, vectors, batch_size=settings.embedding_batch_size),
                    reindexer,
                    jobs,
                    search,
                    settings.qdrant_collection,
                ),
                documents=DocumentRoutes(search, settings.qdrant_collection),
                jobs=JobRoutes(jobs),
                collections=CollectionRoutes(search),
                service=ServiceRoutes(health, registry, openapi, docs_page(openapi)),
            ),
            admission=admission,
            bodies=Bodies(BODIES_TOGETHER * settings.max_body_bytes),
            keys=ApiKeys(settings.keys()),
            tracing=tracing,
            metrics=metrics,
            limits=Limits(
                budget_s=settings.request_timeout_seconds,
                budgets_s=dict.fromkeys(
                    ("POST /index", "DELETE /documents"), settings.index_timeout_seconds
                ),
                body_bytes=min(SMALL_BODY_BYTES, settings.max_body_bytes),
                bodies_bytes={"/index": settings.max_body_bytes},
                log_queries=settings.log_queries,
            ),
        )
        yield Gateway(front, admission, health, search, jobs)


def _channels(settings: GatewaySettings, tracing: Tracing) -> dict[WorkerName, grpc.aio.Channel]:
    targets: dict[WorkerName, tuple[str | None, str]] = {
        "embedder": (settings.embedder_target, EMBEDDER_SERVICE),
        "embedder_next": (settings.embedder_target_next, EMBEDDER_SERVICE),
        "reranker": (settings.reranker_target, RERANKER_SERVICE),
        "generator": (settings.generator_target, GENERATOR_SERVICE),
    }
    return {
        name: open_channel(target, service, tracing)
        for name, (target, service) in targets.items()
        if target is not None
    }


def _jobs(
    settings: GatewaySettings,
    indexer: Indexer,
    reindexer: Reindexer,
    pulse: PulseEmbedder,
    metrics: GatewayMetrics,
) -> JobRunner:
    journal = Journal(settings.data_dir / "jobs")
    return JobRunner(
        journal if settings.jobs else None,
        {"index": IndexWork(indexer, journal), "reindex": ReindexWork(reindexer)},
        JobLimits(
            queued=settings.jobs_queued,
            kept=settings.jobs_kept,
            spool_bytes=settings.jobs_spool_bytes,
            stall_s=settings.job_stall_seconds,
        ),
        metrics,
        Clock(pulse_s=pulse.last_s),
    )


def _policy(settings: GatewaySettings) -> Policy:
    fused = settings.rerank_fusion == "rrf"
    return Policy(
        default_collection=settings.qdrant_collection,
        rerank_timeout_s=settings.rerank_timeout_seconds,
        rerank_candidates=settings.rerank_candidates,
        rerank_fusion_k=settings.rerank_fusion_k if fused else None,
        passages_per_document=settings.passages_per_document,
    )


def _redis(settings: GatewaySettings) -> RedisTier | None:
    if settings.redis_url is None:
        return None
    return RedisTier(
        settings.redis_url.get_secret_value(),
        timeout_s=settings.redis_timeout_seconds,
        ttl_s=settings.cache_ttl_seconds,
        connections=settings.max_connections,
    )


def _version() -> str:
    try:
        return version("production-rag")
    except PackageNotFoundError:  # run from a checkout that was not installed
        return "0+unknown"
