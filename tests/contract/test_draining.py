"""A replica that stops, and a client that knows no other one yet."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from rag.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from support.serving import Running, listening

from bench import dns
from runtime.channel import open_channel
from runtime.errors import ServiceError
from runtime.health import Health
from runtime.server import Service, serve_worker
from runtime.settings import WorkerSettings
from runtime.telemetry import Tracing

SERVICE = "rag.embedder.v1.EmbedderService"
NAME = "replicas.test"
MODEL = embedder_pb2.GetModelRequest()


@dataclass
class Replica(embedder_pb2_grpc.EmbedderServiceServicer):
    """Says its name, once it may."""

    name: str
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def GetModel(self, request: Any, context: Any) -> Any:
        self.arrived.set()
        await self.release.wait()
        return embedder_pb2.GetModelResponse(name=self.name)

    @asynccontextmanager
    async def serving(self, host: str, port: int = 0) -> AsyncIterator[Running]:
        async def start() -> str:
            return "scripted"

        async def stop() -> None:
            return

        def add(server: Any) -> None:
            embedder_pb2_grpc.add_EmbedderServiceServicer_to_server(self, server)

        def run(fd: int) -> Any:
            settings = WorkerSettings(
                grpc_host=host, grpc_port=port, metrics_host=host, metrics_port=0,
                drain_pause_seconds=0, control_fd=fd,
            )  # fmt: skip
            service = Service(SERVICE, ("GetModel",), add, start, stop)
            return serve_worker(settings, service, Health(SERVICE), CollectorRegistry())

        async with listening(run) as running:
            await running.ready()
            yield running


@pytest.mark.skipif(sys.platform != "linux", reason="loopback has one address elsewhere")
async def test_clients_find_another_while_the_one_that_stops_still_finishes() -> None:
    old, new = Replica("old"), Replica("new")
    new.release.set()
    with dns.serving() as names:
        names.zone[NAME] = ("127.0.0.1",)
        async with old.serving("127.0.0.1") as running:
            port = int(running.target.rpartition(":")[2])
            async with (
                new.serving("127.0.0.2", port),
                open_channel(names.target(NAME, port), SERVICE, Tracing(None)) as channel,
            ):
                stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
                first = asyncio.ensure_future(stub.GetModel(MODEL, timeout=30))
                await old.arrived.wait()
                names.zone[NAME] = ("127.0.0.2",)
                running.stop()
                async with asyncio.timeout(15):
                    assert await answer(stub) == "new"
                assert not first.done()
                old.release.set()
                assert (await first).name == "old"


async def answer(stub: embedder_pb2_grpc.EmbedderServiceAsyncStub) -> str:
    """The name of whichever replica answers first; until one is known, calls are refused."""
    while True:
        try:
            return (await stub.GetModel(MODEL, timeout=30)).name
        except ServiceError:
            await asyncio.sleep(0.01)
