"""Reading request bodies: each is bounded, and so is what all of them hold of memory."""

from __future__ import annotations

from starlette.types import Receive

from gateway.exchange import Exchange
from gateway.problems import HttpError, HttpReason


class Bodies:
    """The memory of request bodies. most_bytes: what those being served may hold together.

    A body counts until its request is over: what is decoded from it is about as large.
    """

    def __init__(self, most_bytes: int) -> None:
        self._free_bytes = most_bytes

    async def read(self, exchange: Exchange, receive: Receive, most_bytes: int) -> bytes:
        """The whole body; empty when the caller left. To be followed by `release`.

        Raises HttpError BODY_TOO_LARGE, or OVERLOADED while other bodies hold the memory.
        """
        declared = exchange.headers.get(b"content-length", b"")
        if declared.isdigit():
            self._check(0, int(declared[:20]), most_bytes)
        parts: list[bytes] = []
        while True:
            exchange.body_asked = True
            message = await receive()
            if message["type"] == "http.disconnect":
                exchange.left = True
                return b""
            part = message.get("body", b"")
            self._check(exchange.body_bytes, len(part), most_bytes)
            exchange.body_bytes += len(part)
            self._free_bytes -= len(part)
            parts.append(part)
            if not message.get("more_body"):
                return parts[0] if len(parts) == 1 else b"".join(parts)

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
                HttpReason.OVERLOADED, "The bodies of other requests take all the memory."
            )
