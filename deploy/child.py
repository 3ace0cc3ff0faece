"""One child process of the local launcher: started, watched, restarted, stopped.

The child's side of the protocol is `runtime/supervision.py`: over the socket
whose number stands in `CONTROL_FD` it writes one JSON object a line, first
`{"event": "listening", "grpc_port": ..}` (the gateway: `"http_port"`), then
`{"event": "ready", "detail": ".."}`. The end of that socket means that the
launcher is gone, and the child exits as on SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

from runtime.settings import EXIT_BAD_SETTINGS
from runtime.supervision import EXIT_RESOURCE_TAKEN

# Deaths in a row before a child was ready for the first time, after which the
# launcher gives up: 0.5 + 1 + 2 + 4 s of waiting beside the starts themselves.
MAX_START_ATTEMPTS: Final = 5
FIRST_BACKOFF_S: Final = 0.5
MAX_BACKOFF_S: Final = 10.0
EXIT_GAVE_UP: Final = 1

# The name under which an event carries a port, and the setting that asks for it again.
_PORT_SETTINGS: Final[Mapping[str, str]] = {
    "grpc_port": "GRPC_PORT",
    "metrics_port": "METRICS_PORT",
    "http_port": "SERVER_PORT",
}


class Child:
    """A process `python -m <module>` that is kept running until `stop()`.

    It lives in a session of its own, so that Ctrl-C in the terminal reaches the
    launcher alone.
    """

    def __init__(
        self,
        name: str,
        module: str,
        environment: Mapping[str, str],
        say: Callable[[str, str], None],
    ) -> None:
        """`environment` is laid over the launcher's own; `say(name, text)` tells the user."""
        self.name = name
        self.ports: dict[str, int] = {}
        self.listening = asyncio.Event()
        self.ready = asyncio.Event()
        self._module = module
        self._environment = dict(environment)
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The process id of the running child; None between two lives."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if self._process is not None and running else None

    async def keep(self) -> int:
        """Runs the child and starts it again when it dies, until `stop()`.

        Returns the code with which everything must end: 0 after `stop()`, the
        child's own for faults that a restart cannot cure, `EXIT_GAVE_UP` when it
        never came up.
        """
        deaths = 0
        ever_ready = False
        while not self._stopping.is_set():
            status = await self._live()
            if self._stopping.is_set():
                break
            if self.ready.is_set():
                ever_ready, deaths = True, 0
            self.ready.clear()
            # A taken port or a locked folder may be the last life's own remains:
            # final only for a child that never held them.
            if status == EXIT_BAD_SETTINGS or (status == EXIT_RESOURCE_TAKEN and not ever_ready):
                return status
            deaths += 1
            if not ever_ready and deaths == MAX_START_ATTEMPTS:
                self._say(self.name, f"{describe(status)}; gave up after {deaths} attempts")
                return EXIT_GAVE_UP
            delay_s = min(FIRST_BACKOFF_S * 2 ** (deaths - 1), MAX_BACKOFF_S)
            self._say(self.name, f"{describe(status)}; starting again in {delay_s:g} s")
            await self._pause(delay_s)
        return 0

    async def stop(self, timeout_s: float) -> None:
        """Asks the child to finish and waits for it; after `timeout_s` it is killed."""
        self._stopping.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), timeout_s)
        except TimeoutError:
            self._say(self.name, f"did not stop within {timeout_s:g} s: killed")
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """Kills the child at once, and whatever it started itself."""
        self._stopping.set()
        if self._process is not None:
            _kill_group(self._process.pid)

    async def _live(self) -> int:
        """One life of the process; returns its exit code, negative for a signal."""
        started_s = time.monotonic()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self._module,
                stdin=subprocess.DEVNULL,
                env=os.environ | self._environment | {"CONTROL_FD": str(theirs.fileno())},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
            self._process = process
            theirs.close()
            if self._stopping.is_set():  # stop() came before there was anything to stop
                self.kill()
            reader, writer = await asyncio.open_connection(sock=ours)
            events = asyncio.create_task(self._read(reader, started_s))
            try:
                return await process.wait()
            finally:
                events.cancel()
                await asyncio.wait((events,))
                writer.close()
                if not events.cancelled():
                    events.result()  # a line that nobody understands is a fault to show

    async def _read(self, reader: asyncio.StreamReader, started_s: float) -> None:
        async for line in reader:
            event = json.loads(line)
            if event["event"] == "listening":
                self._listen({key: event[key] for key in _PORT_SETTINGS if key in event})
            elif event["event"] == "ready":
                took_s = time.monotonic() - started_s
                self._say(self.name, f"ready in {took_s:.1f} s: {event.get('detail', '')}")
                self.ready.set()

    def _listen(self, ports: Mapping[str, int]) -> None:
        # The gateway was told these ports once: the next life takes the same.
        self.ports.update(ports)
        self._environment.update({_PORT_SETTINGS[key]: str(port) for key, port in ports.items()})
        self.listening.set()

    async def _pause(self, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), delay_s)
        if self._process is not None:
            # What a dead gateway leaves behind has had the pause to exit by
            # itself; longer, and it would keep the data folder locked.
            _kill_group(self._process.pid)


def describe(status: int) -> str:
    """How a process ended, in words."""
    if status >= 0:
        return f"exited with {status}"
    return f"was killed by {signal.Signals(-status).name}"


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
