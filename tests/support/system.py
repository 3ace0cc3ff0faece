"""The whole system as a user starts it: real processes, real models, over HTTP."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx
import psutil

START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 60.0
ROOT: Final = Path(__file__).parents[2]

T = TypeVar("T")


class System:
    """`python -m deploy.local` on a free port, with its data in `data_dir`."""

    def __init__(self, data_dir: Path, **environment: str) -> None:
        self.data_dir = data_dir
        self.stderr: list[str] = []
        self.stdout: list[str] = []
        self._lines: Queue[str | None] = Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "deploy.local"],
            # Not in the checkout: its `.env` is the developer's.
            cwd=data_dir,
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "protos"))),
                "SERVER_PORT": "0",
                "DATA_DIR": str(data_dir),
            }
            | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(self._process.stdout, self.stdout)),
            threading.Thread(target=self._read, args=(self._process.stderr, self.stderr)),
        ]
        for reader in self._readers:
            reader.start()
        try:
            found = self.wait_for_line(r"Ready after .* on (http://\S+)", START_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise
        self.client = httpx.Client(base_url=found[1], timeout=60)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.client.close()
        assert self.stop() == 0, "".join(self.stderr)

    def stop(self) -> int:
        """Stops everything as Ctrl-C does; returns the launcher's exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            code = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        for reader in self._readers:
            reader.join(STOP_TIMEOUT_S)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        return code

    def process(self, module: str) -> psutil.Process | None:
        """The child, or child's child, that runs `python -m module`, if it runs."""
        for child in psutil.Process(self._process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                command = child.cmdline()
                if "-m" in command and command[command.index("-m") + 1] == module:
                    return child
        return None

    def kill(self, module: str) -> int:
        """SIGKILL to one of the processes; its id."""
        process = self.process(module)
        assert process is not None, f"{module} does not run"
        process.kill()
        return process.pid

    @contextmanager
    def hung(self, module: str) -> Iterator[None]:
        """Inside the block the process keeps its connections and does nothing."""
        process = self.process(module)
        assert process is not None, f"{module} does not run"
        with frozen(process):
            yield

    @contextmanager
    def gone(self, module: str) -> Iterator[None]:
        """Inside the block the process is dead, and its successor kept from listening."""
        dead = self.kill(module)

        def successor() -> psutil.Process | None:
            process = self.process(module)
            return process if process is not None and process.pid != dead else None

        process = eventually(successor, f"{module} is started again", poll_s=0.01)
        assert process is not None
        with frozen(process):
            assert process.net_connections("inet") == [], f"{module} listens already"
            yield

    def wait_for_line(self, pattern: str, timeout_s: float) -> re.Match[str]:
        """The first line of the launcher, from where the last wait ended, that matches."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except Empty:
                raise AssertionError(
                    f"no line {pattern!r} within {timeout_s} s:\n{''.join(self.stderr)}"
                ) from None
            assert line is not None, f"ended without a line {pattern!r}:\n{''.join(self.stderr)}"
            if found := re.search(pattern, line):
                return found

    def index(self, *documents: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """`POST /index`, expected to succeed."""
        response = self.client.post("/index", json={"documents": list(documents), **fields})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def _read(self, stream: Any, into: list[str]) -> None:
        for line in stream:
            into.append(line)
            if into is self.stderr:
                self._lines.put(line)
        if into is self.stderr:
            self._lines.put(None)


@contextmanager
def frozen(process: psutil.Process) -> Iterator[None]:
    """Inside the block the process stands still."""
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def eventually(
    check: Callable[[], T], what: str, timeout_s: float = 60.0, poll_s: float = 0.05
) -> T:
    """Polls until `check` is true of what another process does, which can only be looked at."""
    deadline_s = time.monotonic() + timeout_s
    while not (found := check()):
        if time.monotonic() > deadline_s:
            raise AssertionError(f"after {timeout_s} s still not: {what}")
        threading.Event().wait(poll_s)
    return found
