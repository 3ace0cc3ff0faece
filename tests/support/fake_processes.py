"""Stand-ins for the four processes that `deploy.local` starts, and a handle on the launcher.

They speak the launcher's protocol and nothing else, so that its own behaviour
can be tested in a second, deaths and bad starts included.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("embedder_worker", "reranker_worker", "generator_worker", "gateway")
PATIENCE_S = 30.0

# A file <name>.exit makes the process exit at once with that code, one
# <name>.stubborn makes it ignore SIGTERM. All write to one journal.
SOURCE = """
import json, os, pathlib, signal, socket, sys
NAME = "@NAME@"

def note(text):
    with open("journal", "a") as journal:
        journal.write(f"{NAME} {text}\\n")

refusal = pathlib.Path(NAME + ".exit")
if refusal.exists():
    print(f"{NAME} cannot start", file=sys.stderr)
    sys.exit(int(refusal.read_text()))

def stop(*_):
    note("stopped")
    sys.exit(0)

stubborn = pathlib.Path(NAME + ".stubborn").exists()
signal.signal(signal.SIGTERM, signal.SIG_IGN if stubborn else stop)
note("started " + str(os.getpid()))
for key in ("GRPC_PORT", "SERVER_HOST", "LOG_LEVEL", "EMBEDDER_TARGET", "GENERATOR_TARGET",
            "EMBEDDING_MODEL", "EMBEDDER_TARGET_NEXT"):
    note(f"{key}={os.environ.get(key)}")
ports = {"http_port": 8080} if NAME == "gateway" else {
    "grpc_port": 40000 + len(NAME), "metrics_port": 41000 + len(NAME)}
control = socket.socket(fileno=int(os.environ["CONTROL_FD"]))
control.sendall(json.dumps({"event": "listening", **ports}).encode() + b"\\n")
control.sendall(json.dumps({"event": "ready", "detail": "a fake " + NAME}).encode() + b"\\n")
while control.recv(100):
    pass
note("orphaned")
"""


def write_fakes(folder: Path) -> None:
    """Writes the stand-ins as packages that shadow the real ones for a process started there."""
    for name in NAMES:
        package = folder / name
        package.mkdir()
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(SOURCE.replace("@NAME@", name))


class LocalLauncher:
    """`python -m deploy.local` running in `folder`."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deploy.local"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_line(self, part: str, count: int = 1) -> str:
        """The `count`-th line of the launcher's output that holds `part`."""
        with self._news:
            assert self._news.wait_for(
                lambda: sum(part in line for line in self.lines) >= count, PATIENCE_S
            ), f"no {part!r} in {self.lines}"
            return [line for line in self.lines if part in line][count - 1]

    def end(self) -> int:
        """Waits for the exit, and returns its code."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return code

    def kill(self) -> None:
        """Leaves nothing behind, whatever the test did."""
        for line in self.journal():
            if " started " in line:
                self._kill(int(line.split()[-1]))
        self._kill(self.process.pid)
        self.process.wait(PATIENCE_S)

    def journal(self) -> list[str]:
        """What the stand-ins noted, in order."""
        path = self.folder / "journal"
        return path.read_text().splitlines() if path.exists() else []

    def pid(self, name: str) -> int:
        """The process id of that stand-in's latest life."""
        return int(
            [line for line in self.journal() if line.startswith(f"{name} started")][-1].split()[-1]
        )

    def wait_journal(self, *lines: str) -> None:
        """Until all of `lines` stand in the journal."""
        until = time.monotonic() + PATIENCE_S
        while not set(lines) <= set(self.journal()):
            assert time.monotonic() < until, f"{lines} not in {self.journal()}"
            threading.Event().wait(0.02)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line.rstrip("\n"))
                self._news.notify_all()
        self.process.stderr.close()

    @staticmethod
    def _kill(pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
