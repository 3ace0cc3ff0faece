"""One worker alone, started as a user starts it: `python -m embedder_worker` in a child process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.datasets import ROOT
from bench.system import START_TIMEOUT_S, STOP_TIMEOUT_S, StartFailed, show_faults

LOOPBACK: Final = "127.0.0.1"
# What a worker has on top of its own settings, unless the caller says otherwise.
_DEFAULTS: Final = {
    "GRPC_HOST": LOOPBACK,
    "GRPC_PORT": "0",
    "METRICS_HOST": LOOPBACK,
    "METRICS_PORT": "0",
    "DRAIN_PAUSE_SECONDS": "0",  # no load balancer watches
    "LOG_LEVEL": "WARNING",
}


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker that is ready; or a gateway, whose one port serves REST and metrics.

    target: of its gRPC server, "127.0.0.1:<port>" unless `grpc_host` was given.
    description: what it says of its model, such as "all-MiniLM-L6-v2@1a2b3c4d, openvino bf16".
    start_s: from the command to ready, model loaded and warm.
    """

    target: str
    metrics_url: str
    description: str
    start_s: float
    process: subprocess.Popen[bytes] = field(repr=False)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self.process.pid

    def stop(self) -> None:
        """SIGTERM, and waits; a worker that does not end within a minute is killed."""
        _stop(self.process)

    def kill(self) -> None:
        """SIGKILL: what a machine that fails looks like."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def running(module: str, **settings: object) -> Iterator[Worker]:
    """Starts `python -m <module>` on free ports and waits until it is ready; stops it at the end.

    settings: such as `embedding_precision="fp32"`, laid over the caller's own environment.
    No `.env` is read. Raises StartFailed.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        log = Path(folder) / "log.jsonl"
        own = _DEFAULTS | {name.upper(): str(value) for name, value in settings.items()}
        # Started in the empty folder, the code still comes from this checkout.
        paths = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'protos'}"}
        ours, theirs = socket.socketpair()
        started_s = time.monotonic()
        # The worker also ends when `ours` does, however this process dies (runtime/supervision.py).
        with ours, theirs, log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", module],
                cwd=folder,
                env=os.environ | paths | own | {"CONTROL_FD": str(theirs.fileno())},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
            theirs.close()
            try:
                yield _wait_ready(ours, process, module, own["GRPC_HOST"], started_s)
            except BaseException:
                show_faults(log)  # the folder goes away, and the cause with it
                raise
            finally:
                _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_ready(
    control: socket.socket,
    process: subprocess.Popen[bytes],
    module: str,
    host: str,
    started_s: float,
) -> Worker:
    """Reads what the worker reports: its ports, then that it is ready."""
    ports: dict[str, int] = {}
    control.settimeout(START_TIMEOUT_S)
    try:
        with control.makefile("rb") as lines:
            for line in lines:
                event = json.loads(line)
                if event["event"] == "listening":
                    ports = event
                elif event["event"] == "ready":
                    port = ports["http_port"] if "http_port" in ports else ports["grpc_port"]
                    metrics_port = ports.get("metrics_port", port)
                    return Worker(
                        f"{host}:{port}",
                        f"http://{LOOPBACK}:{metrics_port}/metrics",
                        event.get("detail", ""),
                        time.monotonic() - started_s,
                        process,
                    )
    except TimeoutError:
        raise StartFailed(f"{module} was not ready within {START_TIMEOUT_S:g} s") from None
    raise StartFailed(f"{module} ended with {process.wait()} before it was ready")
