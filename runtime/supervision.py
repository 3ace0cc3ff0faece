"""The child's side of the local launcher: a socket to report on, whose end means stop.

The launcher passes one end of a socketpair as `CONTROL_FD`. The process writes
JSON lines: `{"event": "listening", ...ports}` once it is bound, and
`{"event": "ready", "detail": "..."}` once it serves. End of file means that the
launcher is gone, however it died: the process stops as on SIGTERM.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, Self

import msgspec
import uvloop

log = logging.getLogger(__name__)

# A port is taken, or the data folder is locked: starting again does not help by itself.
EXIT_RESOURCE_TAKEN: Final = 3
EXIT_SECOND_SIGNAL: Final = 130


class ResourceTaken(Exception):
    """A port or a folder this process needs is held by another one.

    The text is one line that names the setting and the cure; `run` prints it and exits 3.
    """


class Launcher:
    """Whoever started this process; nobody, when `CONTROL_FD` is not set."""

    def __init__(
        self, reader: asyncio.StreamReader | None, writer: asyncio.StreamWriter | None
    ) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, control_fd: int | None) -> Self:
        """Takes over the launcher's socket, if there is one."""
        if control_fd is None:
            return cls(None, None)
        reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=control_fd))
        return cls(reader, writer)

    def report(self, event: str, **fields: str | int) -> None:
        """Tells the launcher; the log, when there is none."""
        if self._writer is None:
            log.info(event, extra=fields)
        elif not self._writer.is_closing():
            self._writer.write(msgspec.json.encode({"event": event, **fields}) + b"\n")

    async def close(self) -> None:
        """Closes this end: the launcher reads end of file."""
        if self._writer is not None:
            self._writer.close()
            with suppress(ConnectionError):  # the launcher may have gone first
                await self._writer.wait_closed()

    async def gone(self) -> None:
        """Returns when the launcher has closed its end; never, without a launcher."""
        if self._reader is None:
            await asyncio.get_running_loop().create_future()
            return
        try:
            while await self._reader.read(1024):
                continue
        except ConnectionError:
            return


class StopRequest:
    """Set by SIGTERM, SIGINT or the launcher's end. A second signal exits at once."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._asked = asyncio.Event()

    async def wait(self) -> None:
        """Installs the signal handlers and returns when the process should stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        gone = asyncio.create_task(self._launcher.gone())
        gone.add_done_callback(lambda _: self._asked.set())
        try:
            await self._asked.wait()
        finally:
            gone.cancel()

    def _on_signal(self) -> None:
        if self._asked.is_set():
            os._exit(EXIT_SECOND_SIGNAL)
        self._asked.set()


def end_process() -> None:
    """Stops this process as SIGTERM does, for what is broken in it and does not heal: whoever
    runs it (Kubernetes, compose) starts it again.
    """
    os.kill(os.getpid(), signal.SIGTERM)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs a process's only event loop (uvloop: p50 of a call 0.46 ms against 0.68).

    Exits 3 with one line when a port or folder is taken.
    """
    try:
        uvloop.run(main)
    except ResourceTaken as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_RESOURCE_TAKEN)
