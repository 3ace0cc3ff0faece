"""What a connection may send, and how slowly, before and beside the bodies of its requests."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import pytest
from support.http import Site, on_a_socket

from gateway import protocol

SEARCH = (
    b"POST /search HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b'Content-Length: 16\r\n\r\n{"query": "why"}'
)
LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode()
    first, *rest = head.strip().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in rest)
    body = await asyncio.wait_for(reader.readexactly(int(headers["content-length"])), 5)
    return int(first.split()[1]), headers, json.loads(body)


async def check_end(reader: asyncio.StreamReader) -> None:
    assert await asyncio.wait_for(reader.read(), 5) == b""


@pytest.mark.parametrize(
    ("before", "part"),
    [
        (b"GET /" + b"x" * 10, b"x" * 1000),
        (LIVE, b"X-Header: 1\r\n" * 80),
        (LIVE + b"X-Header: ", b"x" * 1000),
        # Trailers are headers as well.
        (LIVE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Header: 1\r\n" * 80),
    ],
)
async def test_a_head_has_a_largest_size(before: bytes, part: bytes) -> None:
    async with on_a_socket(Site().app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(before)
        if b"chunked" in before:
            assert (await answer_of(reader))[0] == 200
        for _ in range(protocol.MAX_HEAD_BYTES // 1000 + 1):
            writer.write(part)
            await writer.drain()
        writer.write(part)
        status, headers, problem = await answer_of(reader)
        assert (status, problem["reason"]) == (431, "HEAD_TOO_LARGE")
        assert headers["content-type"] == "application/problem+json"
        assert headers["x-request-id"] == problem["instance"]
        assert headers["connection"] == "close"
        await check_end(reader)
        writer.close()


async def test_a_large_body_in_many_parts_is_no_head() -> None:
    async with on_a_socket(Site().app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps({"documents": [{"text": "x" * 300_000}]}).encode()
        for _ in range(2):
            writer.write(LIVE.replace(b"GET /health/live", b"POST /index"))
            writer.write(b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
            for start in range(0, len(body), 1000):
                part = body[start : start + 1000]
                writer.write(b"%x\r\n%s\r\n" % (len(part), part))
                await writer.drain()
            writer.write(b"0\r\n\r\n")
            assert (await answer_of(reader))[0] == 200
        writer.close()


@pytest.mark.parametrize("first", [b"", SEARCH])
async def test_a_head_that_is_never_finished_ends_the_connection(
    first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "PATIENCE_S", 0.2)
    async with on_a_socket(Site().app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(first)
        if first:
            assert (await answer_of(reader))[0] == 200
        writer.write(LIVE)
        await check_end(reader)
        writer.close()


async def test_a_slow_request_is_not_taken_for_a_slow_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a body that comes late nor an answer that takes long is cut by the wait."""
    monkeypatch.setattr(protocol, "PATIENCE_S", 0.1)
    site = Site()
    async with on_a_socket(site.app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head, _, body = SEARCH.partition(b"\r\n\r\n")
        for part in (head + b"\r\n", b"\r\n", body[:5]):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.03)
        await asyncio.sleep(0.15)
        site.store.gate.clear()
        writer.write(body[5:])
        while not site.store.calls:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.15)
        site.store.gate.set()
        assert (await answer_of(reader))[0] == 200
        writer.close()


async def test_a_silent_connection_ends_like_an_idle_one() -> None:
    async with on_a_socket(Site().app, keep_alive_s=1) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await check_end(reader)
        writer.close()


async def test_the_rest_of_a_refused_body_is_waited_for_only_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(protocol, "PATIENCE_S", 0.2)
    async with on_a_socket(Site().app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(SEARCH.replace(b"Content-Length: 16", b"Content-Length: 50000000"))
        assert (await answer_of(reader))[0] == 413

        async def trickle() -> None:
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.01)

        trickling = asyncio.create_task(trickle())
        # Sent after the end, a byte may be answered by a reset.
        with suppress(ConnectionError):
            await check_end(reader)
        trickling.cancel()
        writer.close()


async def test_one_connection_too_many_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_OPEN", 1)
    async with on_a_socket(Site().app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(SEARCH)
        assert (await answer_of(reader))[0] == 200
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", port)
        status, headers, problem = await answer_of(other_reader)
        assert (status, problem["reason"]) == (503, "OVERLOADED")
        assert int(headers["retry-after"]) >= 1
        await check_end(other_reader)
        other_writer.close()
        writer.write(SEARCH)
        assert (await answer_of(reader))[0] == 200
        writer.close()


async def test_what_is_not_http_is_400() -> None:
    async with on_a_socket(Site().app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x16\x03\x01 this is TLS\r\n\r\n")
        status, _, problem = await answer_of(reader)
        assert (status, problem["reason"]) == (400, "MALFORMED_REQUEST")
        await check_end(reader)
        writer.close()
