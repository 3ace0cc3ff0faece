"""Everything with one command: `python -m deploy.local`.

Starts the entry points that production starts, each in a process of its own,
talking gRPC over loopback. Only settings differ: worker ports are free ones,
and the gateway is told where they are.

Progress goes to stderr; stdout carries the processes' JSON log and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from typing import Final

from pydantic import Field

from deploy.child import Child
from deploy.terminal import foreground
from embedder_worker.settings import EmbedderSettings
from gateway.settings import GatewaySettings
from generator_worker.settings import GeneratorSettings
from reranker_worker.settings import RerankerSettings
from runtime.settings import Settings, load

LOOPBACK: Final = "127.0.0.1"

# The worker's name, its entry point, and the gateway's setting for its address.
WORKERS: Final[Mapping[str, tuple[str, str]]] = {
    "embedder": ("embedder_worker", "EMBEDDER_TARGET"),
    "reranker": ("reranker_worker", "RERANKER_TARGET"),
    "generator": ("generator_worker", "GENERATOR_TARGET"),
}
# Started when EMBEDDING_MODEL_NEXT is set, with that model.
NEXT_EMBEDDER: Final = "next"
NEXT_WORKER: Final = ("embedder_worker", "EMBEDDER_TARGET_NEXT")

# Beyond the time a process gives its own requests before it is killed.
STOP_MARGIN_S: Final = 5.0
# How often the launcher says what it is waiting for. A first start may download a model.
PATIENCE_S: Final = 20.0


class LocalSettings(Settings):
    """What the launcher reads beside `Settings`."""

    server_host: str = Field(
        LOOPBACK,
        description="Address the gateway listens on. Here loopback, unlike a gateway started by "
        "itself: one command should not open a port to the network.",
    )
    embedding_model_next: str | None = Field(
        None,
        min_length=1,
        description="A second embedder is started with this model, to which POST /reindex moves "
        "collections; for `make run` and Docker Compose.",
    )


class Launcher:
    """The four processes, and the order in which they start and stop."""

    def __init__(self, settings: LocalSettings) -> None:
        self._settings = settings
        self._started_s = time.monotonic()
        self._end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._killed_by: int | None = None
        self._kinds = dict(WORKERS)
        if settings.embedding_model_next is not None:
            self._kinds[NEXT_EMBEDDER] = NEXT_WORKER
        self._workers = {
            name: Child(name, module, self._worker_environment(name), say)
            for name, (module, _) in self._kinds.items()
        }
        self._gateway: Child | None = None
        self._keepers: list[asyncio.Task[None]] = []

    async def run(self) -> int:
        """Starts everything, waits for a signal or a fault, stops everything.

        Returns the exit code: 0 after one SIGINT, SIGTERM or SIGHUP, 128 + its
        number after a second, else that of the child that could not go on.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal, number)
        announce("production-rag is starting; Ctrl-C stops everything.")
        start = asyncio.create_task(self._start())
        start.add_done_callback(self._check)
        try:
            code = await self._end
        finally:
            start.cancel()
            await self._stop()
        return code if self._killed_by is None else 128 + self._killed_by

    async def _start(self) -> None:
        waiting = asyncio.create_task(self._report_waiting())
        try:
            for worker in self._workers.values():
                self._keep(worker)
            for worker in self._workers.values():
                await worker.listening.wait()
            self._gateway = gateway = Child("gateway", "gateway", self._gateway_environment(), say)
            self._keep(gateway)
            for child in self._children():
                await child.ready.wait()
        finally:
            waiting.cancel()
        announce(welcome(self._settings.server_host, gateway.ports["http_port"], self._age_s()))
        announce(addresses({name: child.ports for name, child in self._workers.items()}))

    async def _report_waiting(self) -> None:
        while True:
            await asyncio.sleep(PATIENCE_S)
            names = ", ".join(child.name for child in self._children() if not child.ready.is_set())
            say("waiting", f"for {names}, {self._age_s():.0f} s so far")

    def _keep(self, child: Child) -> None:
        say(child.name, "starting")
        task = asyncio.create_task(self._keep_until_end(child))
        task.add_done_callback(self._check)
        self._keepers.append(task)

    async def _keep_until_end(self, child: Child) -> None:
        code = await child.keep()
        if not self._end.done():
            self._end.set_result(code)

    def _check(self, task: asyncio.Task[None]) -> None:
        """A fault of the launcher itself ends everything and is shown, not swallowed."""
        if not task.cancelled() and (fault := task.exception()) and not self._end.done():
            self._end.set_exception(fault)

    def _children(self) -> list[Child]:
        return [*self._workers.values(), *([self._gateway] if self._gateway else [])]

    async def _stop(self) -> None:
        announce("Stopping.")
        settings = self._settings
        timeout_s = settings.drain_pause_seconds + settings.drain_timeout_seconds + STOP_MARGIN_S
        # The gateway first: its requests in flight still need the workers.
        if self._gateway is not None:
            await self._gateway.stop(timeout_s)
        await asyncio.gather(*(worker.stop(timeout_s) for worker in self._workers.values()))
        await asyncio.gather(*self._keepers, return_exceptions=True)
        announce("Stopped.")

    def _on_signal(self, number: int) -> None:
        if not self._end.done():
            self._end.set_result(0)
            return
        self._killed_by = number
        for child in self._children():
            child.kill()

    def _common_environment(self) -> dict[str, str]:
        # No load balancer watches a single machine, so nobody needs the pause.
        given = self._settings.model_fields_set
        return {} if "drain_pause_seconds" in given else {"DRAIN_PAUSE_SECONDS": "0"}

    def _worker_environment(self, name: str) -> dict[str, str]:
        # The gateway's line per request is enough; the workers speak up when something is wrong.
        quiet = {} if "log_level" in self._settings.model_fields_set else {"LOG_LEVEL": "WARNING"}
        ports = {
            "GRPC_HOST": LOOPBACK,
            "GRPC_PORT": "0",
            "METRICS_HOST": LOOPBACK,
            "METRICS_PORT": "0",
        }
        model = self._settings.embedding_model_next if name == NEXT_EMBEDDER else None
        other = {} if model is None else {"EMBEDDING_MODEL": model}
        return self._common_environment() | ports | quiet | other

    def _gateway_environment(self) -> dict[str, str]:
        targets = {
            target: f"{LOOPBACK}:{self._workers[name].ports['grpc_port']}"
            for name, (_, target) in self._kinds.items()
        }
        host = {"SERVER_HOST": self._settings.server_host}
        return self._common_environment() | targets | host

    def _age_s(self) -> float:
        return time.monotonic() - self._started_s


def announce(text: str) -> None:
    """Tells the user, on stderr."""
    # A terminal that was closed must not keep the shutdown from finishing.
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def say(name: str, text: str) -> None:
    """Tells the user something about one process."""
    announce(f"  {name:<10} {text}")


def welcome(host: str, port: int, seconds: float) -> str:
    """What to do next, once everything is ready."""
    shown = "localhost" if host in ("0.0.0.0", "::") else host
    url = f"http://{shown}:{port}"
    header = "-H 'Content-Type: application/json'"
    return "\n".join(
        (
            f"Ready after {seconds:.1f} s on {url} (to read and try it: {url}/docs).",
            "  index:  curl " + f"{url}/index {header} \\",
            """            -d '{"documents": [{"id": "hello", "text": "Rust has no null."}]}'""",
            "  ask:    curl " + f"{url}/query {header} \\",
            """            -d '{"query": "Does Rust have null?"}'""",
        )
    )


def addresses(ports: Mapping[str, Mapping[str, int]]) -> str:
    """Where each worker takes calls and is measured: ports by its name and their kind."""
    rows = (("workers", "grpc_port"), ("metrics", "metrics_port"))
    return "\n".join(
        f"  {title + ':':<10}"
        + ", ".join(f"{name} {LOOPBACK}:{of[kind]}" for name, of in ports.items())
        for title, kind in rows
    )


def main() -> int:
    """Runs until a signal; the exit code of the process."""
    # All at once: a fault of one process should not hide those of the next.
    settings = load(
        LocalSettings, GatewaySettings, EmbedderSettings, RerankerSettings, GeneratorSettings
    )
    os.environ.pop("CONTROL_FD", None)  # a launcher has no launcher
    with foreground():
        return asyncio.run(_run(settings))


async def _run(settings: LocalSettings) -> int:
    return await Launcher(settings).run()


if __name__ == "__main__":
    sys.exit(main())
