"""The whole system, started as a user starts it: `python -m deploy.local` in a child process."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from bench.datasets import ROOT

START_TIMEOUT_S: Final = 300.0
POLL_INTERVAL_S: Final = 0.05
FAULTS_SHOWN: Final = 20
STOP_TIMEOUT_S: Final = 60.0
_URL: Final = re.compile(r"Ready after [\d.]+ s on (http://\S+)")
# The modules whose processes are measured, by the name the tables use.
_MODULES: Final[Mapping[str, str]] = {
    "gateway": "gateway",
    "embedder_worker": "embedder",
    "reranker_worker": "reranker",
    "generator_worker": "generator",
}


class StartFailed(Exception):
    """The system did not become ready; the text ends with what it said."""


@dataclass(frozen=True, slots=True)
class System:
    """A running system.

    pids: process by name: gateway, store (the embedded engine's process), embedder,
        reranker, generator.
    start_s: from the command to ready, model loaded and warm.
    """

    url: str
    pids: dict[str, int]
    embedder_target: str
    start_s: float

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the gateway."""
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)


@contextlib.contextmanager
def running(environment: Mapping[str, str] | None = None) -> Iterator[System]:
    """Starts everything on free ports with an empty data folder; stops it at the end.

    environment: settings laid over the caller's own environment. No `.env` is read:
    what is measured is the default and whatever is exported on purpose.
    Raises StartFailed.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        own = {
            "SERVER_PORT": "0",
            "DATA_DIR": f"{folder}/data",
            # Started in the empty folder, the code still comes from this checkout.
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'protos'}",
        }
        progress, log = Path(folder) / "progress.txt", Path(folder) / "log.jsonl"
        # The log is written, to a file, as it is in production: its cost is part of a request's.
        with log.open("wb") as stdout, progress.open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-m", "deploy.local"],
                cwd=folder,
                env=os.environ | own | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
        try:
            yield _wait_ready(process, progress)
        except BaseException:
            show_faults(log)  # the folder goes away, and the cause with it
            raise
        finally:
            _stop(process)


def _wait_ready(process: subprocess.Popen[bytes], progress: Path) -> System:
    started_s = time.monotonic()
    while (found := _URL.search(progress.read_text(errors="replace"))) is None:
        if process.poll() is not None or time.monotonic() - started_s > START_TIMEOUT_S:
            said = progress.read_text(errors="replace")
            raise StartFailed(f"The system did not start:\n{said}")
        time.sleep(POLL_INTERVAL_S)
    start_s = time.monotonic() - started_s
    pids = _pids(process.pid)
    target = psutil.Process(pids["gateway"]).environ()["EMBEDDER_TARGET"]
    return System(found.group(1), pids, target, start_s)


def show_faults(log: Path) -> None:
    """Writes the log's last warnings and errors to stderr."""
    lines = log.read_text(errors="replace").splitlines()
    faults = [line for line in lines if '"level":"INFO"' not in line]
    print("\n".join(faults[-FAULTS_SHOWN:]), file=sys.stderr)


def _pids(launcher_pid: int) -> dict[str, int]:
    pids: dict[str, int] = {}
    for child in psutil.Process(launcher_pid).children():
        name = _MODULES.get(child.cmdline()[-1])
        if name is not None:
            pids[name] = child.pid
    # Whatever the gateway starts is its store; with QDRANT_URL it starts nothing.
    for child in psutil.Process(pids["gateway"]).children():
        pids["store"] = child.pid
    return pids


def _stop(process: subprocess.Popen[bytes]) -> None:
    """One SIGTERM stops all in order; a launcher that hangs is killed with all it started."""
    if process.poll() is not None:
        return
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.kill()
        process.wait()
