"""`python -m gateway` as a process of its own, over scripted workers and a real embedded store."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from support import workers
from support.embedder import DIMENSION
from support.workers import Script

ROOT: Final = Path(__file__).parents[2]


@dataclass
class GatewayProcess:
    """The process, its log lines so far, and a client of it."""

    process: asyncio.subprocess.Process
    lines: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=30)

    async def until(self, message: str) -> dict[str, Any]:
        """Reads on until a log line says `message`."""
        assert self.process.stdout is not None
        while True:
            raw = await asyncio.wait_for(self.process.stdout.readline(), 60)
            assert raw, f"the gateway ended before it said {message!r}"
            line: dict[str, Any] = json.loads(raw)
            self.lines.append(line)
            if line["message"] == message:
                return line

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def ended(self) -> int:
        """The exit code; the rest of the log is read."""
        assert self.process.stdout is not None
        rest = await asyncio.wait_for(self.process.stdout.read(), 60)
        self.lines += [json.loads(raw) for raw in rest.splitlines()]
        return await asyncio.wait_for(self.process.wait(), 60)


@asynccontextmanager
async def spawned(**environment: str) -> AsyncIterator[GatewayProcess]:
    """Starts the process; kills it at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway",
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "protos"))),
            "SERVER_HOST": "127.0.0.1",
            "SERVER_PORT": "0",
            "VECTOR_DIM": str(DIMENSION),
            "DRAIN_PAUSE_SECONDS": "0.2",
        }
        | environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    try:
        yield GatewayProcess(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@dataclass
class Scripted:
    """A gateway that answers, what its workers play, where they are, and how to end each."""

    gateway: GatewayProcess
    embedder: Script
    reranker: Script
    generator: Script
    targets: dict[str, str]
    ends: dict[str, AsyncExitStack]


@asynccontextmanager
async def running(data_dir: Path, **environment: str) -> AsyncIterator[Scripted]:
    """A ready gateway."""
    scripts = {name: Script() for name in ("embedder", "reranker", "generator")}
    async with AsyncExitStack() as stack:
        ends = {name: await stack.enter_async_context(AsyncExitStack()) for name in scripts}
        targets = {
            f"{name.upper()}_TARGET": await ends[name].enter_async_context(
                getattr(workers, name)(script)
            )
            for name, script in scripts.items()
        }
        gateway = await stack.enter_async_context(
            spawned(DATA_DIR=str(data_dir), **(targets | environment))
        )
        gateway.port = (await gateway.until("listening"))["http_port"]
        await gateway.until("ready")
        yield Scripted(gateway, **scripts, targets=targets, ends=ends)
