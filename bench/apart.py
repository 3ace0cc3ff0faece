"""A function in a process of its own, where its threads and its interpreter disturb no other's."""

from __future__ import annotations

import contextlib
import multiprocessing
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final, Generic, TypeVar

STOP_TIMEOUT_S: Final = 10.0

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class FailedApart(Exception):
    """The function raised, or its process ended; the text is the other side's traceback."""


@dataclass(frozen=True, slots=True)
class Apart(Generic[Argument, Result]):
    """Called like the function itself. One call at a time; between two, its process waits."""

    pid: int
    _connection: Connection

    def __call__(self, argument: Argument) -> Result:
        """The function's result. Raises FailedApart."""
        with contextlib.suppress(BrokenPipeError):  # the answer says what became of it
            self._connection.send(argument)
        return self._receive()

    def _receive(self) -> Result:
        try:
            result, fault = self._connection.recv()
        except (EOFError, ConnectionError) as error:
            raise FailedApart(f"process {self.pid} is gone") from error
        if fault is not None:
            raise FailedApart(fault)
        value: Result = result
        return value


@contextlib.contextmanager
def apart(make: Callable[[], Callable[[Argument], Result]]) -> Iterator[Apart[Argument, Result]]:
    """Starts a process that makes the function and then answers calls; ends it afterwards.

    make: a module's function or a `partial` of one. It runs in the new process, so that what
        it loads exists there alone. Arguments and results travel by pickle.
    Raises FailedApart when `make` does.
    """
    spawn = multiprocessing.get_context("spawn")  # a fork would take gRPC's and torch's locks
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs, make), daemon=True)
    process.start()
    theirs.close()
    assert process.pid is not None
    function: Apart[Argument, Result] = Apart(process.pid, ours)
    try:
        function._receive()  # made
        yield function
    finally:
        ours.close()  # its next recv() ends, and so does it
        process.join(STOP_TIMEOUT_S)
        process.kill()  # nothing to a process that has ended


def _serve(connection: Connection, make: Callable[[], Callable[[Any], Any]]) -> None:
    try:
        function = make()
    except Exception:
        connection.send((None, traceback.format_exc()))
        return
    connection.send((None, None))
    # The end of the pipe is the caller's, however it went away.
    with contextlib.suppress(EOFError):
        while True:
            connection.send(_answer(function, connection.recv()))


def _answer(function: Callable[[Any], Any], argument: Any) -> tuple[Any, str | None]:
    try:
        return function(argument), None
    except Exception:
        return None, traceback.format_exc()
