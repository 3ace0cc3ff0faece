"""HTTP in and out; what is meant is decided in the pipeline and the store."""

from __future__ import annotations

from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from gateway.problems import HttpError, HttpReason
from gateway.routes.collections import CollectionRoutes
from gateway.routes.documents import DocumentRoutes
from gateway.routes.indexing import IndexRoutes
from gateway.routes.jobs import JobRoutes
from gateway.routes.queries import QueryRoutes
from gateway.routes.service import ServiceRoutes


def build_router(
    *,
    queries: QueryRoutes,
    indexing: IndexRoutes,
    documents: DocumentRoutes,
    jobs: JobRoutes,
    collections: CollectionRoutes,
    service: ServiceRoutes,
) -> Router:
    """Every route of the gateway, those asked most first: the router looks in order."""
    return Router(
        [
            Route("/search", queries.search, methods=["POST"]),
            Route("/query", queries.query, methods=["POST"]),
            Route("/index", indexing.index, methods=["POST"]),
            Route("/documents", documents.all, methods=["GET", "DELETE"]),
            Route("/documents/{id:path}", documents.one, methods=["GET", "DELETE"]),
            Route("/jobs", jobs.list, methods=["GET"]),
            Route("/jobs/{id}", jobs.one, methods=["GET", "DELETE"]),
            Route("/reindex", indexing.reindex, methods=["POST"]),
            Route("/collections", collections.list, methods=["GET"]),
            Route("/collections/{name}", collections.one, methods=["DELETE"]),
            Route("/health/live", service.live, methods=["GET"]),
            Route("/health/ready", service.ready, methods=["GET"]),
            Route("/health", service.health, methods=["GET"]),
            Route("/metrics", service.metrics, methods=["GET"]),
            Route("/openapi.json", service.openapi, methods=["GET"]),
            Route("/docs", service.docs, methods=["GET"]),
            Route("/", service.home, methods=["GET"]),
        ],
        redirect_slashes=False,
        default=_no_route,
    )


async def _no_route(scope: Scope, receive: Receive, send: Send) -> None:
    raise HttpError(HttpReason.NOT_FOUND, "There is nothing at this address; see /docs.")
