"""The one way to run a worker: a service cannot forget health, errors, drain or metrics."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final

import grpc
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry

from runtime.channel import MAX_MESSAGE_BYTES
from runtime.health import Health
from runtime.interceptors import Gate, ServerInterceptor
from runtime.metrics import RpcMetrics, serve_metrics
from runtime.settings import WorkerSettings
from runtime.supervision import Launcher, ResourceTaken, StopRequest
from runtime.telemetry import open_tracing

log = logging.getLogger(__name__)

# Time for responses already written to leave the socket after the last call ended.
FLUSH_S: Final = 0.5


@dataclass(frozen=True)
class Service:
    """What a worker's composition root hands to `serve_worker`."""

    # Full name, such as "rag.embedder.v1.EmbedderService", and its methods.
    name: str
    methods: tuple[str, ...]
    # Registers the servicer.
    add_to: Callable[[grpc.aio.Server], None]
    # Loads, warms and checks the model; returns one line that says what is loaded.
    start: Callable[[], Awaitable[str]]
    # Releases what `start` took.
    stop: Callable[[], Awaitable[None]]


def server_options(settings: WorkerSettings) -> list[tuple[str, Any]]:
    """Options of every worker's server."""
    return [
        # On by default, it lets two servers share one port in silence.
        ("grpc.so_reuseport", 0),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        # Without these a server answers a client's keepalive with GOAWAY too_many_pings.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Connections end now and then, so that clients resolve again and find new replicas.
        ("grpc.max_connection_age_ms", round(settings.max_connection_age_seconds * 1000)),
        (
            "grpc.max_connection_age_grace_ms",
            round(settings.max_connection_age_grace_seconds * 1000),
        ),
    ]


async def serve_worker(
    settings: WorkerSettings, service: Service, health_state: Health, registry: CollectorRegistry
) -> None:
    """Serves until a signal or the launcher's end, then drains.

    The port is bound at once; until `service.start` has returned, health says
    NOT_SERVING and calls answer UNAVAILABLE with reason MODEL_LOADING. To
    stop: not ready → pause → refuse new calls → finish what runs → release.
    Raises ResourceTaken when a port is, or an address is not this machine's.
    """
    async with AsyncExitStack() as stack:
        launcher = await Launcher.connect(settings.control_fd)
        stack.push_async_callback(launcher.close)
        tracing = open_tracing(service.name)
        stack.callback(tracing.close)
        gate = Gate(health_state, settings.max_concurrent_rpcs)
        metrics = RpcMetrics(registry, service.methods)
        metrics.in_flight.set_function(gate.in_flight)
        server = await _build(
            settings, service, health_state, ServerInterceptor(service.name, gate, tracing, metrics)
        )
        port = _bind(server, settings)
        exporter = serve_metrics(settings.metrics_host, settings.metrics_port, registry)
        stack.callback(exporter.close)
        stack.push_async_callback(service.stop)
        await server.start()
        stack.push_async_callback(server.stop, FLUSH_S)
        launcher.report("listening", grpc_port=port, metrics_port=exporter.port)

        stopped = asyncio.create_task(StopRequest(launcher).wait())
        stack.callback(stopped.cancel)
        detail = await _start_unless(stopped, service.start)
        if detail is not None:
            _keep_for_good()
            await health_state.start()
            launcher.report("ready", detail=detail)
            await stopped
            await health_state.drain()
            log.info("draining")
            await asyncio.sleep(settings.drain_pause_seconds)
        gate.close()
        await _finish(server, gate, settings.drain_timeout_seconds)


async def _build(
    settings: WorkerSettings, service: Service, health_state: Health, interceptor: ServerInterceptor
) -> grpc.aio.Server:
    server = grpc.aio.server(interceptors=[interceptor], options=server_options(settings))
    service.add_to(server)
    await health_state.register(server)
    reflection.enable_server_reflection(
        (service.name, health.SERVICE_NAME, reflection.SERVICE_NAME), server
    )
    return server


def _bind(server: grpc.aio.Server, settings: WorkerSettings) -> int:
    address = f"{settings.grpc_host}:{settings.grpc_port}"
    try:
        return server.add_insecure_port(address)
    except RuntimeError:
        raise ResourceTaken(
            f"GRPC_HOST, GRPC_PORT: cannot listen on {address}; the port is taken or not ours to "
            "take, or the address is not this machine's. Set another one."
        ) from None


async def _start_unless(
    stopped: asyncio.Task[None], start: Callable[[], Awaitable[str]]
) -> str | None:
    """What `start` returns, or None when the process was asked to stop first."""
    starting = asyncio.ensure_future(start())
    await asyncio.wait((starting, stopped), return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        return starting.result()
    starting.cancel()
    return None


def _keep_for_good() -> None:
    """Takes what start-up made out of the garbage collector's sight: it lives as long as the
    process, and looking through it again and again stops every call meanwhile.
    """
    gc.collect()
    gc.freeze()


async def _finish(server: grpc.aio.Server, gate: Gate, timeout_s: float) -> None:
    # GOAWAY now and not after the last call, which may take as long as an answer: it makes
    # clients resolve the name again, and find the replica that comes in the place of this one.
    farewell = asyncio.create_task(server.stop(timeout_s))
    try:
        await asyncio.wait_for(gate.wait_empty(), timeout_s)
    except TimeoutError:
        log.warning("calls still running after %s s are broken off", timeout_s)
    finally:
        farewell.cancel()
