"""What `python -m deploy.local` does with its children: order, deaths, signals."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.fake_processes import ROOT, LocalLauncher, write_fakes

Start = Callable[..., LocalLauncher]
WORKERS = ("embedder_worker", "reranker_worker", "generator_worker")

# A shell above `make`, as in life: it owns the terminal and gets it back.
SHELL_IN_TERMINAL = """
import fcntl, os, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv("/bin/sh", ["sh", "-c", "trap : INT; make run; echo status $?"])
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    write_fakes(tmp_path)
    launchers: list[LocalLauncher] = []

    def start_(**environment: str) -> LocalLauncher:
        launchers.append(LocalLauncher(tmp_path, **environment))
        return launchers[-1]

    yield start_
    for launcher in launchers:
        launcher.kill()


def test_start_up_tells_what_starts_and_where_it_is(start: Start) -> None:
    launcher = start()
    assert "http://127.0.0.1:8080" in launcher.wait_line("Ready after")
    for name in ("embedder", "reranker", "generator"):
        line = launcher.wait_line(f"{name:<10} ready in")
        assert line.endswith(f"a fake {name}_worker")
    starts = [line.split()[0] for line in launcher.lines if line.endswith("starting")]
    assert starts == ["embedder", "reranker", "generator", "gateway"]


def test_the_ready_lines_tell_where_the_workers_are(start: Start) -> None:
    launcher = start()
    told = [launcher.wait_line("  workers: "), launcher.wait_line("  metrics: ")]
    for line, base in zip(told, (40000, 41000), strict=True):
        ports = [(name, base + len(f"{name}_worker")) for name in ("embedder", "reranker")]
        assert all(f"{name} 127.0.0.1:{port}," in line for name, port in ports)


def test_children_get_loopback_and_each_others_addresses(start: Start) -> None:
    launcher = start()
    launcher.wait_line("Ready after")
    journal = launcher.journal()
    assert "embedder_worker GRPC_PORT=0" in journal
    assert "embedder_worker LOG_LEVEL=WARNING" in journal
    assert "gateway SERVER_HOST=127.0.0.1" in journal
    assert f"gateway EMBEDDER_TARGET=127.0.0.1:{40000 + len('embedder_worker')}" in journal
    assert f"gateway GENERATOR_TARGET=127.0.0.1:{40000 + len('generator_worker')}" in journal


def test_a_next_model_gets_an_embedder_of_its_own(start: Start) -> None:
    launcher = start(EMBEDDING_MODEL_NEXT="other/model", EMBEDDING_MODEL="one/model")
    launcher.wait_line("Ready after")
    assert "next 127.0.0.1:" in launcher.wait_line("  workers: ")
    journal = launcher.journal()
    for model in ("one/model", "other/model"):
        assert journal.count(f"embedder_worker EMBEDDING_MODEL={model}") == 1
    target = f"127.0.0.1:{40000 + len('embedder_worker')}"
    assert f"gateway EMBEDDER_TARGET_NEXT={target}" in journal


def test_given_settings_win(start: Start) -> None:
    launcher = start(SERVER_HOST="0.0.0.0", LOG_LEVEL="INFO")
    assert "http://localhost:8080" in launcher.wait_line("Ready after")
    assert "gateway SERVER_HOST=0.0.0.0" in launcher.journal()
    assert "reranker_worker LOG_LEVEL=INFO" in launcher.journal()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_stops_the_gateway_first_and_exits_0(start: Start, number: int) -> None:
    launcher = start()
    launcher.wait_line("Ready after")
    launcher.process.send_signal(number)
    assert launcher.end() == 0
    stops = [line for line in launcher.journal() if line.endswith("stopped")]
    assert stops[0] == "gateway stopped"
    assert sorted(stops[1:]) == sorted(f"{name} stopped" for name in WORKERS)
    assert launcher.lines[-1] == "Stopped."


def test_signal_during_the_start_exits_0(start: Start) -> None:
    launcher = start()
    launcher.wait_line("is starting")
    launcher.process.send_signal(signal.SIGTERM)
    assert launcher.end() == 0


def test_second_signal_kills(start: Start, tmp_path: Path) -> None:
    (tmp_path / "gateway.stubborn").touch()
    launcher = start()
    launcher.wait_line("Ready after")
    launcher.process.send_signal(signal.SIGINT)
    launcher.wait_line("Stopping.")
    launcher.process.send_signal(signal.SIGINT)
    assert launcher.end() == 128 + signal.SIGINT
    with pytest.raises(ProcessLookupError):
        os.kill(launcher.pid("gateway"), 0)


@pytest.mark.parametrize("name", ["reranker_worker", "gateway"])
def test_killed_child_comes_back_on_its_port(start: Start, name: str) -> None:
    launcher = start()
    launcher.wait_line("Ready after")
    short = name.removesuffix("_worker")
    os.kill(launcher.pid(name), signal.SIGKILL)
    line = launcher.wait_line("was killed by SIGKILL")
    assert line.split()[0] == short
    assert line.endswith("starting again in 0.5 s")
    launcher.wait_line(f"{short:<10} ready in", count=2)
    if name != "gateway":
        assert f"{name} GRPC_PORT={40000 + len(name)}" in launcher.journal()


@pytest.mark.parametrize(
    ("name", "code"), [("generator_worker", 2), ("gateway", 2), ("gateway", 3)]
)
def test_fault_no_restart_cures_ends_everything(
    start: Start, tmp_path: Path, name: str, code: int
) -> None:
    (tmp_path / f"{name}.exit").write_text(str(code))
    launcher = start()
    assert launcher.end() == code
    assert f"{name} cannot start" in launcher.lines
    started = {line.split()[0] for line in launcher.journal() if " started " in line}
    stopped = {line.split()[0] for line in launcher.journal() if line.endswith("stopped")}
    # One that was still starting Python when it was asked to stop noted neither.
    assert stopped == started


def test_children_leave_when_the_launcher_is_killed(start: Start) -> None:
    launcher = start()
    launcher.wait_line("Ready after")
    launcher.process.kill()
    launcher.wait_journal("gateway orphaned", *(f"{name} orphaned" for name in WORKERS))


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not on PATH")
def test_ctrl_c_under_make_exits_0(tmp_path: Path) -> None:
    """In a terminal, the interrupt goes to the launcher alone and `make` sees a clean exit."""
    write_fakes(tmp_path)
    (tmp_path / "Makefile").write_text(f"run:\n\t@exec {sys.executable} -m deploy.local\n")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", SHELL_IN_TERMINAL],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    try:
        _read_until(ours, b"Does Rust have null")
        os.write(ours, b"\x03")
        shown = _read_until(ours, b"status 0")
        assert b"Stopped." in shown
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _read_until(terminal: int, mark: bytes, timeout_s: float = 30.0) -> bytes:
    read = b""
    until = time.monotonic() + timeout_s
    while mark not in read:
        ready, _, _ = select.select([terminal], [], [], max(0.0, until - time.monotonic()))
        assert ready, read
        read += os.read(terminal, 4096)
    return read
