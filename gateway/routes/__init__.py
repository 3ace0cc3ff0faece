"""HTTP in and out; what is meant is decided in the pipeline and the store."""

from __future__ import annotations

from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from gateway.problems import HttpError, HttpReason
from gateway.routes.documents import DocumentRoutes
from gateway.routes.queries import QueryRoutes
from gateway.routes.service import ServiceRoutes


def build_router(queries: QueryRoutes, documents: DocumentRoutes, service: ServiceRoutes) -> Router:
    """Every route of the gateway, those asked most first: the router looks in order."""
    return Router(
        [
            Route("/search", queries.search, methods=["POST"]),
            Route("/query", queries.query, methods=["POST"]),
            Route("/index", documents.index, methods=["POST"]),
            Route("/documents", documents.list, methods=["GET"]),
            Route("/documents/{id:path}", documents.one, methods=["GET", "DELETE"]),
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
