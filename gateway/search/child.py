"""The store's process: `python -m gateway.search.child <fd>` serves the socket `fd`.

One thread runs the engine, because every call holds the GIL anyway: reads go before
writes, a write at a time in between. Another thread syncs the engine's log, once for
all writes applied meanwhile, and acknowledges them. The process ends when the socket does.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import queue
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.search import wire
from gateway.search.engine import Engine
from gateway.search.locks import LOCK_WAIT_S, RETRY_S, Locked

# A flush takes 100 ms in which nothing is found: it waits for a pause of this length...
IDLE_S: Final = 1.0
# ...unless the log has grown so far that replaying it would slow the next start.
LOG_BYTES: Final = 64 * 1024 * 1024
# Reads in a row before a waiting write gets its turn: writes are never starved.
READS_IN_A_ROW: Final = 16
RECEIVE_BYTES: Final = 1 << 20
# prctl(2): the signal to get when the parent dies.
_PR_SET_PDEATHSIG: Final = 1


class Server:
    """Requests from the socket in, replies out, until the socket ends."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._unframer = wire.Unframer()
        self._reads: deque[wire.Request] = deque()
        self._writes: deque[tuple[wire.Request, int]] = deque()
        self._reads_in_a_row = 0
        self._log_bytes = 0
        self._applied: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._sending = threading.Lock()
        self._decode = msgspec.msgpack.Decoder(wire.Request).decode
        self._encode = msgspec.msgpack.Encoder().encode

    def run(self) -> None:
        """Serves until the gateway is gone; then flushes and returns."""
        engine = self._open()
        if engine is None:
            return
        acknowledging = threading.Thread(target=self._acknowledge, args=(engine,), daemon=True)
        acknowledging.start()
        gc.collect()
        gc.freeze()
        while self._receive():
            if self._flush_is_due():
                engine.flush()
                self._log_bytes = 0
            self._turn(engine)
        self._applied.put(None)
        acknowledging.join()
        engine.close()

    def _open(self) -> Engine | None:
        """The engine of the first request; None when there is none to be had."""
        while not self._reads:
            if not self._receive():
                return None
        request = self._reads.popleft()
        call = request.call
        if not isinstance(call, wire.Open):
            raise TypeError(f"the first call is open, not {type(call).__name__}")
        give_up_s = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                engine = Engine(Path(call.path), call.config, call.tuning, create=call.create)
            except Locked:
                if time.monotonic() > give_up_s:
                    self._reply(request.id, "locked")
                    return None
                time.sleep(RETRY_S)
                continue
            except Exception:
                traceback.print_exc()
                self._reply(request.id, "failed")
                return None
            self._reply(request.id)
            return engine

    def _pending(self) -> int:
        return len(self._reads) + len(self._writes)

    def _flush_is_due(self) -> bool:
        if self._log_bytes >= LOG_BYTES:
            return True
        return bool(self._log_bytes) and not self._pending() and not self._readable(IDLE_S)

    def _readable(self, timeout_s: float | None) -> bool:
        return bool(select.select([self._connection], [], [], timeout_s)[0])

    def _receive(self) -> bool:
        """Takes in what has arrived, waiting only if there is nothing to do; False at the end."""
        idle = not self._pending() and not self._log_bytes
        if not self._readable(None if idle else 0):
            return True
        try:
            data = self._connection.recv(RECEIVE_BYTES)
        except ConnectionError:  # the gateway died before it had read every reply
            data = b""
        for body in self._unframer.feed(data):
            request = self._decode(body)
            if isinstance(request.call, wire.Write):
                self._writes.append((request, len(body)))
            else:
                self._reads.append(request)
        return bool(data)

    def _turn(self, engine: Engine) -> None:
        """One call: a read, unless a write has waited for long enough."""
        write_due = self._writes and self._reads_in_a_row >= READS_IN_A_ROW
        if self._reads and not write_due:
            self._reads_in_a_row += 1
            self._run(engine, self._reads.popleft())
        elif self._writes:
            self._reads_in_a_row = 0
            request, size = self._writes.popleft()
            self._log_bytes += size
            self._run(engine, request)

    def _run(self, engine: Engine, request: wire.Request) -> None:
        if time.monotonic() > request.expires_at_s:
            self._reply(request.id, "expired")
            return
        try:
            result = _answer(engine, request.call)
        except Exception:
            traceback.print_exc()
            self._reply(request.id, "failed")
            return
        if isinstance(request.call, wire.Write):
            self._applied.put(request.id)
        else:
            self._reply(request.id, result=result)

    def _acknowledge(self, engine: Engine) -> None:
        """Syncs the log for the writes applied since the last time, then replies to them."""
        ended = False
        while not ended:
            batch = [self._applied.get()]
            with contextlib.suppress(queue.Empty):
                while True:
                    batch.append(self._applied.get_nowait())
            try:
                engine.sync()
            except Exception:
                # What a failed sync left on disk is unknown: load it afresh.
                traceback.print_exc()
                os._exit(1)
            for request_id in batch:
                if request_id is None:
                    ended = True
                else:
                    self._reply(request_id)

    def _reply(self, request_id: int, fault: str = "", result: Any = None) -> None:
        body = self._encode((request_id, fault, result))
        try:
            data = wire.frame(body)
        except ValueError:
            traceback.print_exc()
            data = wire.frame(self._encode((request_id, "failed", None)))
        # A gateway that is gone needs no reply; the end of the socket says so to `run`.
        with self._sending, contextlib.suppress(OSError):
            self._connection.sendall(data)


def _answer(engine: Engine, call: wire.Call) -> Any:
    result: Any = None
    match call:
        case wire.Query():
            result = engine.query(call)
        case wire.Retrieve():
            result = engine.retrieve(call)
        case wire.Scroll():
            result = engine.scroll(call)
        case wire.Count():
            result = engine.count(call)
        case wire.Ping():
            pass
        case wire.Optimize():
            _leave_with_the_gateway(True)
            try:
                engine.optimize()
            finally:
                _leave_with_the_gateway(False)
        case wire.Open():
            raise RuntimeError("the generation is open already")
        case _:
            engine.write(call)
    return result


def _leave_with_the_gateway(at_once: bool) -> None:
    """Whether to be killed the moment the gateway dies, rather than leave as its socket ends.

    While the engine optimises, which takes minutes, nothing here could see the socket end, and
    the next gateway would find the directory locked. Linux alone can do it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if at_once else 0)


def main() -> None:
    """Serves the inherited socket whose number is the only argument."""
    # Whoever stops a whole group of processes means the gateway, which drains first.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    Server(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
