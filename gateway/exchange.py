"""One request and its answer: what the middleware, the routes and the log line share."""

from __future__ import annotations

import re
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from starlette.requests import Request
from starlette.types import Scope

from gateway.problems import Problem
from runtime.deadline import Deadline

# The status of a request whose caller hung up; it is logged and never sent (nginx's number).
CALLER_LEFT: Final = 499
_SANE_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


@dataclass(slots=True)
class Exchange:
    """One request and its answer.

    headers: of the request, names in lower case; of a repeated one, the last.
    deadline: of the whole request; every call made for it gets what is left.
    body: its parts as they came, until they are decoded. body_bytes: its size. body_asked: the
        caller was let send it.
    status: 0 until the response starts.
    complete: the last byte of the response was handed to the server.
    left: the caller hung up before that.
    last_words: the end of a response that failed once it had begun; None just breaks off.
    query, cache_hit, sources: for the log line, where the route knows them.
    """

    request_id: str
    method: str
    path: str
    headers: Mapping[bytes, bytes]
    deadline: Deadline
    body: deque[bytes] = field(default_factory=deque)
    body_bytes: int = 0
    body_asked: bool = False
    status: int = 0
    complete: bool = False
    left: bool = False
    last_words: Callable[[Problem], bytes] | None = None
    reason: str | None = None
    query: str | None = None
    cache_hit: bool | None = None
    sources: int | None = None
    started_s: float = field(default_factory=time.perf_counter)

    def elapsed_ms(self) -> float:
        """Milliseconds since the request arrived."""
        return round((time.perf_counter() - self.started_s) * 1000, 3)


def request_id(headers: Mapping[bytes, bytes]) -> str:
    """The caller's own X-Request-ID if it is sane, else a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and _SANE_ID.fullmatch(given):
        return given.decode("ascii")
    return uuid.uuid4().hex


def attach(scope: Scope, exchange: Exchange) -> None:
    """Makes the exchange known to the route that serves `scope`."""
    scope["exchange"] = exchange


def exchange_of(request: Request) -> Exchange:
    """The exchange a request belongs to."""
    found: Exchange = request.scope["exchange"]
    return found
