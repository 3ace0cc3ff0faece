"""`grpc.health.v1` under two names: `live` (the event loop turns) and the service's own (ready)."""

from __future__ import annotations

from typing import Final

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined]
from grpc_health.v1.health_pb2 import HealthCheckResponse

LIVE: Final = "live"


class Health:
    """What probes and clients are told.

    The service is NOT_SERVING until `start`, follows `set_serving` from then
    on, and is NOT_SERVING for good after `drain`. `live` serves throughout: a
    probe on it restarts a process whose loop hangs, and no other.
    """

    def __init__(self, service_name: str) -> None:
        self.service_name = service_name
        self._servicer = health_aio.HealthServicer()
        self._started = False
        self._draining = False
        self._serving = True

    @property
    def ready(self) -> bool:
        """Whether the service takes calls."""
        return self._started and self._serving and not self._draining

    @property
    def draining(self) -> bool:
        """Whether the process is stopping."""
        return self._draining

    async def register(self, server: grpc.aio.Server) -> None:
        """Adds the health service, not serving yet: call it before the server starts."""
        await self._servicer.set(LIVE, HealthCheckResponse.SERVING)
        await self._publish()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def start(self) -> None:
        """The model is loaded, warm and checked."""
        self._started = True
        await self._publish()

    async def set_serving(self, serving: bool) -> None:
        """Takes the service out (its model fails again and again) or back in."""
        self._serving = serving
        await self._publish()

    async def drain(self) -> None:
        """The process is stopping."""
        self._draining = True
        await self._publish()

    async def _publish(self) -> None:
        state = HealthCheckResponse.SERVING if self.ready else HealthCheckResponse.NOT_SERVING
        await self._servicer.set(self.service_name, state)
        # The empty name is the whole server: some probes know no other.
        await self._servicer.set("", state)
