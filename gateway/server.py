"""Runs the gateway: binds, serves until asked to stop, then drains in the order of a request."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final

import uvicorn

from gateway.app import Gateway, open_gateway
from gateway.protocol import BoundedProtocol
from gateway.settings import GatewaySettings
from runtime.supervision import Launcher, ResourceTaken, StopRequest

log: Final = logging.getLogger(__name__)

# Connections waiting to be accepted; one burst of them is not a reason to refuse.
BACKLOG: Final = 2048
# Load balancers keep idle connections for 60 s; closing first would race with their requests.
KEEP_ALIVE_S: Final = 75
# After the drain: for the last bytes to leave; what still runs then is cancelled.
CLOSE_S: Final = 2


class _Server(uvicorn.Server):
    """Leaves signals to `StopRequest`: uvicorn's own handling knows no pause before the refusal."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def serve(settings: GatewaySettings) -> None:
    """Serves until a signal or the launcher's end.

    The port is bound at once; requests are let in once the store is open. To stop: not
    ready → pause → refuse new requests → finish what runs → flush the store.
    Raises ResourceTaken when the port is, and what `open_gateway` raises.
    """
    listener = _bind(settings)
    launcher = await Launcher.connect(settings.control_fd)
    stopping = asyncio.create_task(StopRequest(launcher).wait())
    port = listener.getsockname()[1]
    async with open_gateway(settings) as gateway:
        server = _server(gateway, settings)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        running = asyncio.create_task(gateway.run())
        announcing = asyncio.create_task(_announce_ready(gateway, launcher, _detail(settings)))
        launcher.report("listening", http_port=port)
        _warn_if_open(settings)
        try:
            await asyncio.wait((stopping, serving, running), return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                await _drain(gateway, settings)
        finally:
            server.should_exit = True
            await serving
            await _ended(running, announcing, stopping)
    await launcher.close()
    log.info("stopped")


async def _ended(running: asyncio.Task[None], *others: asyncio.Task[None]) -> None:
    """Ends the tasks beside the server; raises what made the gateway end by itself."""
    for task in (running, *others):
        task.cancel()
    await asyncio.wait((running, *others))
    if not running.cancelled() and (error := running.exception()) is not None:
        raise error


def _bind(settings: GatewaySettings) -> socket.socket:
    host, port = settings.server_host, settings.server_port
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ResourceTaken(
            f"SERVER_PORT: cannot listen on {host}:{port} ({error.strerror}); "
            "stop what uses it, or set another one."
        ) from error
    return listener


def _server(gateway: Gateway, settings: GatewaySettings) -> _Server:
    # What it says of starting and stopping we say ourselves.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    return _Server(
        uvicorn.Config(
            gateway.asgi,
            loop="none",
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=CLOSE_S,
            backlog=BACKLOG,
        )
    )


async def _drain(gateway: Gateway, settings: GatewaySettings) -> None:
    log.info("draining")
    gateway.health.drain()
    await asyncio.sleep(settings.drain_pause_seconds)
    gateway.admission.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(settings.drain_timeout_seconds):
            await asyncio.gather(gateway.admission.wait_empty(), gateway.jobs.stop())
    gateway.admission.cut_off()
    # The server closes the connections once the last bytes are out.


async def _announce_ready(gateway: Gateway, launcher: Launcher, detail: str) -> None:
    await gateway.health.became_ready.wait()
    launcher.report("ready", detail=detail)


def _detail(settings: GatewaySettings) -> str:
    """Where things are kept, in a line; of addresses nothing, they may hold passwords."""
    store = f"embedded Qdrant in {settings.data_dir}/" if settings.qdrant_url is None else "Qdrant"
    cache = "memory" if settings.redis_url is None else "memory and Redis"
    return f"documents in {store}, question vectors in {cache}"


def _warn_if_open(settings: GatewaySettings) -> None:
    if settings.server_host not in ("127.0.0.1", "::1", "localhost") and not settings.keys():
        log.warning(
            "everybody who reaches %s may read and change everything: set API_KEYS",
            settings.server_host,
        )
