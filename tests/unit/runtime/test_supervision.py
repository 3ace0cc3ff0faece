"""What a process does when it is asked to stop, once and twice, and when its launcher is gone."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import pytest

from runtime.supervision import EXIT_RESOURCE_TAKEN, EXIT_SECOND_SIGNAL

CHILD = """
import asyncio, os, sys
from runtime.supervision import Launcher, ResourceTaken, StopRequest, end_process, run

async def main():
    fd = os.environ.get("CONTROL_FD")
    launcher = await Launcher.connect(int(fd) if fd else None)
    stop = asyncio.create_task(StopRequest(launcher).wait())
    await asyncio.sleep(0)
    launcher.report("ready", detail="x")
    print("ready", flush=True)
    if "broken" in sys.argv:
        end_process()
    await stop
    print("stopping", flush=True)
    if "hang" in sys.argv:
        await asyncio.get_running_loop().create_future()
    if "taken" in sys.argv:
        raise ResourceTaken("SOME_PORT: taken")
    await launcher.close()

run(main())
"""


def child(*arguments: str, control: socket.socket | None = None) -> subprocess.Popen[str]:
    fds = [control.fileno()] if control else []
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *arguments],
        env={"CONTROL_FD": str(fds[0])} if fds else {},
        pass_fds=fds,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_stops_and_the_process_ends_with_0(number: signal.Signals) -> None:
    with child() as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.wait(20) == 0


def test_what_is_broken_in_a_process_ends_it_as_a_signal_does() -> None:
    with child("broken") as process:
        assert process.wait(20) == 0
        assert process.stdout
        assert process.stdout.read() == "ready\nstopping\n"


def test_the_second_signal_exits_at_once() -> None:
    with child("hang") as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == EXIT_SECOND_SIGNAL


def test_the_end_of_the_launcher_is_as_a_signal() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, child(control=theirs) as process:
        theirs.close()
        with ours.makefile() as lines:
            assert lines.readline() == '{"event":"ready","detail":"x"}\n'
        ours.close()
        assert process.wait(20) == 0


def test_a_taken_resource_is_one_line_and_exit_code_3() -> None:
    with child("taken") as process:
        assert process.stdout
        process.stdout.readline()
        process.terminate()
        assert process.wait(20) == EXIT_RESOURCE_TAKEN
        assert process.stderr
        assert process.stderr.read() == "SOME_PORT: taken\n"
