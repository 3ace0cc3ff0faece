"""What people and machines ask about the service itself."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from gateway.answers import Liveness
from gateway.health import Health
from gateway.routes.common import JSON, json_response


class ServiceRoutes:
    """Health, metrics and the description of the API. None of them does any I/O."""

    def __init__(
        self, health: Health, registry: CollectorRegistry, openapi: bytes, docs: bytes
    ) -> None:
        self._health = health
        self._registry = registry
        self._openapi = openapi
        self._docs = docs

    async def health(self, request: Request) -> Response:
        """The verdict is in the body: a lost dependency must not restart gateways."""
        return json_response(self._health.report())

    async def live(self, request: Request) -> Response:
        """The event loop answers."""
        return json_response(Liveness())

    async def ready(self, request: Request) -> Response:
        """Whether this gateway should be sent requests."""
        readiness = self._health.readiness()
        return json_response(readiness, 200 if readiness.ready else 503)

    async def metrics(self, request: Request) -> Response:
        """Prometheus text."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    async def openapi(self, request: Request) -> Response:
        """The OpenAPI document."""
        return Response(self._openapi, media_type=JSON)

    async def home(self, request: Request) -> Response:
        """Whoever opens the bare address in a browser wants the page."""
        return RedirectResponse("/docs")

    async def docs(self, request: Request) -> Response:
        """A page to read and try the API, with nothing fetched from elsewhere."""
        headers = {
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
            "script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
        }
        return Response(self._docs, media_type="text/html", headers=headers)
