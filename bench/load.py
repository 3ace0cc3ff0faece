"""A closed-loop HTTP client: N clients, each sending its next request when the last is answered.

Asyncio streams over keep-alive connections, with no more HTTP than the gateway's answers
need. A general client (httpx: about 0.5 ms of CPU a request) would take the processor away
from what is measured.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

# Longer than the gateway's own request time-out, so that it is always the one to give up.
REPLY_TIMEOUT_S: Final = 60.0
_HEADER_END: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. latency_s: from the first byte sent to the last received."""

    status: int
    body: bytes
    latency_s: float


@dataclass(slots=True)
class Sample:
    """What some seconds of load gave."""

    replies: list[Reply] = field(default_factory=list)
    duration_s: float = 0.0

    def add(self, other: Sample) -> None:
        """Takes in another sample of the same load."""
        self.replies += other.replies
        self.duration_s += other.duration_s


def post(address: tuple[str, int], path: str, body: dict[str, Any]) -> bytes:
    """The bytes of one POST request on a keep-alive connection."""
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def closed_loop(
    address: tuple[str, int], requests: Iterator[bytes], clients: int, duration_s: float
) -> Sample:
    """Keeps `clients` requests in flight for `duration_s`; those in flight then are finished.

    Raises OSError when the server breaks off, TimeoutError when it does not answer.
    """
    started_s = time.perf_counter()
    end_s = started_s + duration_s

    def over() -> bool:
        return time.perf_counter() >= end_s

    replies = await asyncio.gather(*(ask(address, requests, over) for _ in range(clients)))
    return Sample([reply for each in replies for reply in each], time.perf_counter() - started_s)


async def ask(
    address: tuple[str, int], requests: Iterator[bytes], over: Callable[[], bool]
) -> list[Reply]:
    """Sends one request after another until it is `over`; their replies, in that order."""
    reader, writer = await asyncio.open_connection(*address)
    replies = []
    try:
        while not over():
            sent_s = time.perf_counter()
            writer.write(next(requests))
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                status, body = await read_answer(reader)
            replies.append(Reply(status, body, time.perf_counter() - sent_s))
    finally:
        writer.close()
    return replies


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of one answer, which must say its length."""
    head = (await reader.readuntil(_HEADER_END)).lower()
    status = int(head[9:12])
    _, found, rest = head.partition(b"\r\ncontent-length:")
    if not found:
        raise ConnectionError("an answer without Content-Length")
    return status, await reader.readexactly(int(rest[: rest.index(b"\r\n")]))
