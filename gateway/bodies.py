"""Reading request bodies: each is bounded, and so is what all of them hold of memory."""

from __future__ import annotations

from typing import Final

from starlette.types import Receive

from gateway.exchange import Exchange
from gateway.problems import HttpError, HttpReason

# The bodies being served hold at most this many times MAX_BODY_BYTES: 256 MiB by default.
BODIES_TOGETHER: Final = 8
# A body is kept in parts of about this size.
PART_BYTES: Final = 64 * 1024


class Bodies:
    """The memory of request bodies. most_bytes: what those being served may hold together.

    A body counts until its request is over: it is kept as it came, and decoded bit by bit.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._free_bytes = most_bytes

    async def read(self, exchange: Exchange, receive: Receive, most_bytes: int) -> None:
        """Reads the body into the exchange, until its end or the caller left; then `release`.

        Raises HttpError BODY_TOO_LARGE, or OVERLOADED while other bodies hold the memory.
        """
        declared = exchange.headers.get(b"content-length", b"")
        if declared.isdigit():
            self._check(0, int(declared[:20]), most_bytes)
        gathered = bytearray()  # bytes kept one by one take 40 times the memory
        while True:
            exchange.body_asked = True
            message = await receive()
            if message["type"] == "http.disconnect":
                exchange.left = True
                return
            part = message.get("body", b"")
            self._check(exchange.body_bytes, len(part), most_bytes)
            exchange.body_bytes += len(part)
            self._free_bytes -= len(part)
            gathered += part
            last = not message.get("more_body")
            if last or len(gathered) >= PART_BYTES:
                exchange.body.append(bytes(gathered))
                gathered.clear()
            if last:
                return

    def release(self, exchange: Exchange) -> None:
        """The request is over."""
        self._free_bytes += exchange.body_bytes

    def _check(self, held_bytes: int, more_bytes: int, most_bytes: int) -> None:
        if held_bytes + more_bytes > most_bytes:
            raise HttpError(
                HttpReason.BODY_TOO_LARGE, f"The body may have at most {most_bytes} bytes."
            )
        if more_bytes > self._free_bytes:
            raise HttpError(
                HttpReason.OVERLOADED,
                f"All bodies may hold {self._most_bytes} bytes together ({BODIES_TOGETHER} times "
                f"MAX_BODY_BYTES), and those of other requests leave {self._free_bytes}.",
            )
