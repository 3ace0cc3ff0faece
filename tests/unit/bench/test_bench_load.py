"""The closed-loop client, against a small server of the test's own."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from bench.load import closed_loop, post

Respond = Callable[[bytes], Awaitable[bytes]]


@asynccontextmanager
async def serving(respond: Respond) -> AsyncIterator[tuple[str, int]]:
    """Answers every request with what `respond(body)` gives, on connections kept alive."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                writer.write(await respond(await reader.readexactly(length)))
        except asyncio.IncompleteReadError:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[:2]


def answer(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def test_replies_carry_status_and_body() -> None:
    async def echo(body: bytes) -> bytes:
        return answer("503 Service Unavailable" if b"full" in body else "200 OK", body)

    async with serving(echo) as address:
        requests = itertools.cycle(
            [post(address, "/x", {"query": "é"}), post(address, "/x", {"query": "full"})]
        )
        sample = await closed_loop(address, requests, clients=1, duration_s=0.05)
    assert {(reply.status, json.loads(reply.body)["query"]) for reply in sample.replies} == {
        (200, "é"),
        (503, "full"),
    }
    assert all(reply.latency_s > 0 for reply in sample.replies)
    assert sample.duration_s >= 0.05


async def test_every_client_keeps_exactly_one_request_in_flight() -> None:
    inside = 0
    most = 0
    all_in = asyncio.Event()

    async def wait_for_all(body: bytes) -> bytes:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        if inside == 4:
            all_in.set()
        await all_in.wait()
        inside -= 1
        return answer("200 OK", body)

    async with serving(wait_for_all) as address:
        requests = itertools.repeat(post(address, "/x", {}))
        sample = await closed_loop(address, requests, clients=4, duration_s=0.05)
    assert most == 4
    assert len(sample.replies) >= 4


async def test_a_server_that_breaks_off_is_an_error() -> None:
    async def cut(_: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\n\r\n"

    async with serving(cut) as address:
        with pytest.raises(ConnectionError, match="Content-Length"):
            await closed_loop(address, itertools.repeat(post(address, "/x", {})), 1, 0.05)
