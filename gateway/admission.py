"""The door: how many requests may be inside, who may come in, and when it is closed."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from types import TracebackType

from gateway.problems import HttpError, HttpReason
from runtime.errors import Reason, ServiceError

# A slot frees up within about this time under overload; the drain is longer than a retry.
RETRY_AFTER_S = 1.0


class Admission:
    """Counts the requests inside; a context manager around each.

    Raises ServiceError UNAVAILABLE until it is opened and DRAINING once it is closed, HttpError
    OVERLOADED when `most` are inside.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._inside: set[asyncio.Task[object] | None] = set()
        self._opened = False
        self._closed = False
        self._empty = asyncio.Event()
        self._empty.set()

    def __enter__(self) -> None:
        if self._closed:
            raise draining()
        if not self._opened:
            raise ServiceError(
                Reason.UNAVAILABLE, "The gateway is still opening its store.", RETRY_AFTER_S
            )
        if len(self._inside) >= self._most:
            raise HttpError(
                HttpReason.OVERLOADED,
                f"{self._most} requests are being served already.",
            )
        self._inside.add(asyncio.current_task())
        self._empty.clear()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inside.discard(asyncio.current_task())
        if not self._inside:
            self._empty.set()

    def inside(self) -> float:
        """Requests being served."""
        return float(len(self._inside))

    def open(self) -> None:
        """From now on requests come in."""
        self._opened = True

    def close(self) -> None:
        """From now on every new request is refused."""
        self._closed = True

    @property
    def closed(self) -> bool:
        """Whether every new request is refused."""
        return self._closed

    async def wait_empty(self) -> None:
        """Returns when no request is being served."""
        await self._empty.wait()

    def cut_off(self) -> None:
        """Cancels the requests being served: once it is closed, each is answered DRAINING."""
        for task in self._inside:
            if task is not None:
                task.cancel()


def draining() -> ServiceError:
    """The error of a request that this process will not finish."""
    return ServiceError(Reason.DRAINING, "The server is stopping; ask another one.", RETRY_AFTER_S)


class ApiKeys:
    """Knows the keys by their digests alone; without keys everybody may call."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Raises HttpError UNAUTHORIZED unless a known key is in `Authorization: Bearer`."""
        if not self._digests:
            return
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        # Every key is compared whichever matches: time must not tell one from another.
        known = [hmac.compare_digest(digest, other) for other in self._digests]
        if scheme.lower() != b"bearer" or not any(known):
            raise HttpError(
                HttpReason.UNAUTHORIZED,
                "Send a known key as `Authorization: Bearer <key>`.",
                headers={"WWW-Authenticate": "Bearer"},
            )
