"""What a connection may ask of us before a request is known: uvicorn's parser bounds none of it."""

from __future__ import annotations

import asyncio
import uuid
from typing import Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.problems import HttpError, HttpReason, problem, response

# The head of a request, or the framing between the parts of a body. Node.js takes 16 KiB of
# headers, nginx 32, Tomcat 8; what comes in one read (256 KB) may be longer.
MAX_HEAD_BYTES: Final = 64 * 1024
# Until the head of a request is whole; and until a body is, that was answered before it was in.
PATIENCE_S: Final = 20.0
# Open connections, idle ones included: each may hold a head and a part of a body.
MAX_OPEN: Final = 2048


class BoundedProtocol(HttpToolsProtocol):
    """One connection. It ends when its caller sends too much, or too slowly, outside of a body.

    The time a body takes is bounded by the budget of its request.
    """

    _unparsed_bytes = 0
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes the connection, unless too many are open."""
        super().connection_made(transport)
        if len(self.connections) > MAX_OPEN:
            self._refuse(HttpError(HttpReason.OVERLOADED, "Too many connections are open."))
            return
        # Silent from the beginning is like silent between two requests.
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses what came, and bounds what did not complete anything."""
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self._unparsed_bytes > MAX_HEAD_BYTES:
            self._refuse(
                HttpError(
                    HttpReason.HEAD_TOO_LARGE,
                    f"The head of a request may have at most {MAX_HEAD_BYTES} bytes.",
                )
            )
        elif self._unparsed_bytes and (self.cycle is None or not self.cycle.more_body):
            self._wait()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._unparsed_bytes = 0
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._unparsed_bytes = 0
        self._stop_waiting()
        super().on_message_complete()
        self.cycle.more_body = False  # which uvicorn leaves when it was answered before

    def on_response_complete(self) -> None:
        """Goes on with the next request; what is left of this one's body is read and dropped.

        To close at once would reset the connection under a caller who still sends, and who
        would never see the answer.
        """
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._wait()

    def send_400_response(self, msg: str) -> None:
        """For what is not HTTP."""
        self._refuse(HttpError(HttpReason.MALFORMED_REQUEST, msg))

    def _wait(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(PATIENCE_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _refuse(self, error: HttpError) -> None:
        """Ends the connection; with an answer, unless one is under way."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            request_id = uuid.uuid4().hex
            answer = response(*problem(error, request_id))
            headers = [
                *answer.raw_headers,
                (b"x-request-id", request_id.encode()),
                (b"connection", b"close"),
            ]
            head = b"".join(b"%s: %s\r\n" % header for header in headers)
            self.transport.write(STATUS_LINE[answer.status_code] + head + b"\r\n" + answer.body)
        self.transport.close()
