"""Embedding servers of other projects: installed in environments of their own, and started."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from bench.datasets import ROOT
from bench.http_embedding import Refused, over_http
from encoders.machine import available_cpus

LOOPBACK: Final = "127.0.0.1"
APPS: Final = ROOT / "bench" / "apps"
# Outside the checkout: 1 to 2 GB an environment, and none is this project's.
DEFAULT_FOLDER: Final = Path("~/.cache/production-rag/bench-servers")
START_TIMEOUT_S: Final = 180.0
STOP_TIMEOUT_S: Final = 15.0
INSTALL_TIMEOUT_S: Final = 1800.0
POLL_INTERVAL_S: Final = 0.05
OUTPUT_SHOWN: Final = 2000


class Unavailable(Exception):
    """A server that cannot be installed or does not start; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to have a server of the model, which speaks OpenAI's form of embeddings at `path`.

    environment: name of its environment; servers of one name share it and its requirements.
    command, prepare: what to run there, in the environment's folder, `prepare` once after the
        installation. {bin}: the environment's programs, {model}: the model's folder, {port},
        {apps}: this package's `apps`.
    folder: to run the command in, relative to the environment's.
    """

    name: str
    environment: str
    requirements: tuple[str, ...]
    command: tuple[str, ...]
    path: str = "/embeddings"
    prepare: tuple[str, ...] = ()
    folder: str = "."


@dataclass(frozen=True, slots=True)
class Foreign:
    """One that runs and has answered. start_s: from the command to its first answer."""

    address: tuple[str, int]
    pid: int
    start_s: float


def folder() -> Path:
    """`BENCH_SERVERS_DIR`, or its default."""
    return Path(os.environ.get("BENCH_SERVERS_DIR") or DEFAULT_FOLDER).expanduser()


def install(recipe: Recipe, model: Path) -> Path:
    """The recipe's environment, made if it is not there yet: minutes, and a package registry.

    Raises Unavailable.
    """
    place = folder() / recipe.environment
    if (place / "complete").exists():
        return place
    shutil.rmtree(place, ignore_errors=True)  # what an interrupted installation left
    venv.create(place, with_pip=True)
    pip = (str(place / "bin" / "python"), "-m", "pip", "install", "-q", *recipe.requirements)
    for command in (pip, _filled(recipe.prepare, place, model)):
        if command:
            _succeed(command, place)
    (place / "complete").touch()
    return place


@contextlib.contextmanager
def running(recipe: Recipe, model: Path) -> Iterator[Foreign]:
    """Starts the server on a free port and waits for its first answer; stops it at the end.

    Raises Unavailable.
    """
    place = install(recipe, model)
    address = (LOOPBACK, _free_port())
    with tempfile.TemporaryFile() as output:
        started_s = time.monotonic()
        process = subprocess.Popen(
            _filled(recipe.command, place, model, address[1]),
            cwd=place / recipe.folder,
            env=_environment(model),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while not uvloop.run(_answers(address, recipe.path)):
                if process.poll() is not None or time.monotonic() - started_s > START_TIMEOUT_S:
                    output.seek(0)
                    said = output.read().decode(errors="replace")
                    raise Unavailable(f"{recipe.name} did not start: {said[-OUTPUT_SHOWN:]}")
                time.sleep(POLL_INTERVAL_S)
            yield Foreign(address, process.pid, time.monotonic() - started_s)
        finally:
            _stop(process)


async def _answers(address: tuple[str, int], path: str) -> bool:
    with contextlib.suppress(OSError, Refused, EOFError, ValueError):
        async with over_http(address, path, "model") as send:
            await send(["Is anybody there?"], bulk=False)
            return True
    return False


def _filled(parts: tuple[str, ...], place: Path, model: Path, port: int = 0) -> tuple[str, ...]:
    values = {"bin": place / "bin", "model": model, "port": port, "apps": APPS}
    return tuple(part.format(**values) for part in parts)


def _environment(model: Path) -> dict[str, str]:
    """No hub and no reports to anybody; as many threads as our worker takes."""
    ours = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    given = {name: value for name, value in os.environ.items() if name not in ours}
    return given | {
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "OMP_NUM_THREADS": str(available_cpus()),
        "MODEL_FOLDER": str(model),
    }


def _succeed(command: tuple[str, ...], place: Path) -> None:
    print(f"bench: {' '.join(command)}", file=sys.stderr, flush=True)
    try:
        subprocess.run(
            command,
            cwd=place,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"},
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=True,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        said = getattr(error, "stderr", None) or ""
        raise Unavailable(f"{error}: {str(said)[-OUTPUT_SHOWN:]}") from error


def _free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to all it started, and after a while SIGKILL."""
    signal_group(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    signal_group(process.pid, signal.SIGKILL)
    process.wait()


def signal_group(pid: int, number: signal.Signals) -> None:
    """To a process that leads a session, and to all in it; to nobody, when they are gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
