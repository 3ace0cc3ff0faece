"""The processes that are killed: started as in production, and started again at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import psutil

ROOT: Final = Path(__file__).parents[2]
START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 60.0
MOST_FAULTS: Final = 5
STORE_MODULE: Final = "gateway.search.child"
_PORTS: Final = {"http_port": "SERVER_PORT", "grpc_port": "GRPC_PORT"}


class Process:
    """`python -m <module>`, kept running on the same port.

    faults: how it ended when nobody had killed it.
    """

    def __init__(self, module: str, folder: Path, environment: dict[str, str]) -> None:
        self._module = module
        self._log = folder / f"{module}.log"
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._killed: set[int] = set()
        self._stopping = False
        self.port = 0
        self.lives = 0
        self.started = asyncio.Event()
        self.listening = asyncio.Event()
        self.ready = asyncio.Event()
        self.faults: list[str] = []

    @property
    def pid(self) -> int:
        """Of this life."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts it, and starts it again whenever it ends."""
        self._stopping = False
        self._keeping = asyncio.create_task(self._keep(), name=self._module)

    async def until_ready(self) -> None:
        """Returns when this life serves. Raises RuntimeError when no life gets so far."""
        assert self._keeping is not None
        ready = asyncio.create_task(self.ready.wait())
        try:
            await asyncio.wait(
                (ready, self._keeping),
                timeout=START_TIMEOUT_S,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            ready.cancel()
        if not self.ready.is_set():
            raise RuntimeError(f"{self._module} does not start: {self.faults} {self.tail()}")

    async def kill(self) -> None:
        """SIGKILL to this life, if there is one; returns when it is dead."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._killed.add(process.pid)
        self.ready.clear()
        self.listening.clear()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def stop(self) -> int:
        """SIGTERM, and no further life; its exit code."""
        self._stopping = True
        keeping, process = self._keeping, self._process
        if keeping is None or process is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
        except TimeoutError:
            self.faults.append(f"{self._module} did not stop within {STOP_TIMEOUT_S:g} s")
            process.kill()
        await keeping
        return process.returncode or 0

    def tail(self, lines: int = 8) -> str:
        """The last it said."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    async def _keep(self) -> None:
        # It ends by itself at most where something died that it needs to start.
        while not self._stopping and len(self.faults) < MOST_FAULTS:
            code = await self._live()
            assert self._process is not None
            if self._process.pid not in self._killed and (code != 0 or not self._stopping):
                self.faults.append(f"{self._module} ended by itself with {code}: {self.tail()}")

    async def _live(self) -> int:
        """One life; its exit code. It also ends when this process does: the socket closes."""
        ours, theirs = socket.socketpair()
        with ours, theirs, self._log.open("ab") as log:
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self._module,
                env=os.environ | self._environment | {"CONTROL_FD": str(theirs.fileno())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
            theirs.close()
            self.lives += 1
            self.started.set()
            reader, writer = await asyncio.open_connection(sock=ours)
            async for line in reader:
                self._hear(process.pid, json.loads(line))
            code = await process.wait()
            self.started.clear()
            self.listening.clear()
            self.ready.clear()
            writer.close()
        return code

    def _hear(self, pid: int, event: dict[str, object]) -> None:
        if pid in self._killed:
            return  # said before it died
        for key, setting in _PORTS.items():
            if key in event:
                self.port = int(str(event[key]))
                self._environment[setting] = str(self.port)
        (self.ready if event["event"] == "ready" else self.listening).set()


class Cluster:
    """A gateway over its embedded store, and an embedder."""

    def __init__(self, gateway: Process, embedder: Process, data_dir: Path) -> None:
        self.gateway = gateway
        self.embedder = embedder
        self.data_dir = data_dir

    @property
    def url(self) -> str:
        """Of the gateway."""
        return f"http://127.0.0.1:{self.gateway.port}"

    @property
    def faults(self) -> list[str]:
        """Ends that nobody brought about."""
        return self.gateway.faults + self.embedder.faults

    def store_pids(self) -> list[int]:
        """The store's processes of this gateway, sorted; a generation each."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return sorted(
                child.pid
                for child in psutil.Process(self.gateway.pid).children()
                if _runs(child, STORE_MODULE)
            )
        return []

    async def until_ready(self) -> None:
        """Returns when both serve."""
        await self.embedder.until_ready()
        await self.gateway.until_ready()


def kill(pid: int) -> None:
    """SIGKILL; one that is gone already is fine."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _runs(process: psutil.Process, module: str) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        return module in process.cmdline()
    return False


@asynccontextmanager
async def running(folder: Path, model: dict[str, str], **settings: str) -> AsyncIterator[Cluster]:
    """Both processes, ready; stopped at the end.

    model: the embedder's settings, with VECTOR_DIM for the gateway; settings: the gateway's own.
    """
    common = {
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "protos"))),
        "LOG_LEVEL": "WARNING",
        "DRAIN_PAUSE_SECONDS": "0",
    }
    ports = {"GRPC_HOST": "127.0.0.1", "GRPC_PORT": "0",
             "METRICS_HOST": "127.0.0.1", "METRICS_PORT": "0"}  # fmt: skip
    embedder = Process("embedder_worker", folder, common | ports | model)
    embedder.start()
    data_dir = folder / "data"
    try:
        await embedder.until_ready()
        own = {
            "SERVER_HOST": "127.0.0.1",
            "SERVER_PORT": "0",
            "DATA_DIR": str(data_dir),
            "EMBEDDER_TARGET": f"127.0.0.1:{embedder.port}",
            "VECTOR_DIM": model["VECTOR_DIM"],
            "PROBE_INTERVAL_SECONDS": "0.2",
        }
        gateway = Process("gateway", folder, common | own | settings)
        gateway.start()
        try:
            await gateway.until_ready()
            yield Cluster(gateway, embedder, data_dir)
        finally:
            await gateway.stop()
    finally:
        await embedder.stop()
