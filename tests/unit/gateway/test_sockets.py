"""What only shows on a real socket: departures, streams, large and slow bodies."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.gateway import FakeStage, marked
from support.http import Site, on_a_socket

from gateway import sse
from gateway.clients import Completion
from runtime.errors import Reason, ServiceError

QUERY = {"query": "why?"}


@asynccontextmanager
async def connected(site: Site) -> Any:
    """A raw connection to the site."""
    async with on_a_socket(site.app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield reader, writer
        finally:
            writer.close()


def post(path: str, body: Any, *more: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", *more]
    if not any("Encoding" in line or "Length" in line for line in more):
        lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


async def head_of(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode()
    first, *rest = head.strip().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in rest)
    return int(first.split()[1]), headers


async def body_of(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    return await asyncio.wait_for(reader.readexactly(int(headers["content-length"])), 5)


async def chunks_of(reader: asyncio.StreamReader) -> bytes:
    """A chunked body up to its end."""
    body = b""
    while size := int(await asyncio.wait_for(reader.readline(), 5), 16):
        body += await reader.readexactly(size)
        await reader.readline()
    return body


async def until(stage: FakeStage) -> None:
    while not stage.calls:
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("path", ["/query", "/search"])
async def test_a_caller_who_hangs_up_cancels_the_work(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    site = Site()
    site.store.gate.clear()
    async with connected(site) as (_, writer):
        writer.write(post(path, QUERY))
        await until(site.store)
        writer.close()
        await asyncio.wait_for(site.store.cancelled.wait(), 5)
        await asyncio.wait_for(site.admission.wait_empty(), 5)
    (line,) = [vars(one) for one in caplog.records if one.name == "gateway.requests"]
    assert line["status"] == 499
    assert line["reason"] is None


async def test_a_caller_who_leaves_a_stream_cancels_the_generator() -> None:
    site = Site()
    site.parts.generator.gate.clear()
    async with connected(site) as (reader, writer):
        writer.write(post("/query", QUERY | {"stream": True}))
        await head_of(reader)
        await until(site.parts.generator)
        writer.close()
        await asyncio.wait_for(site.parts.generator.cancelled.wait(), 5)


async def test_a_caller_who_leaves_while_sending_is_forgotten(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    site = Site()
    async with connected(site) as (_, writer):
        writer.write(post("/query", QUERY)[:-2])
        await writer.drain()
        while not site.admission.inside():
            await asyncio.sleep(0.001)
        writer.close()
        await asyncio.wait_for(site.admission.wait_empty(), 5)
    (line,) = [vars(one) for one in caplog.records if one.name == "gateway.requests"]
    assert line["status"] == 499
    assert site.store.calls == []


async def test_a_body_that_never_comes_is_504() -> None:
    site = Site(budget_s=0.2)
    async with connected(site) as (reader, writer):
        writer.write(post("/query", QUERY)[:-2])
        status, _ = await head_of(reader)
    assert status == 504
    assert site.admission.inside() == 0


async def test_a_stream_is_sources_tokens_and_done() -> None:
    site = Site()
    site.parts.generator.pieces = ("Because ", "of [1].", marked((0, 0, 4), (0, 8, 9), (2, 5, 7)))
    async with connected(site) as (reader, writer):
        writer.write(post("/query", QUERY | {"stream": True}))
        status, headers = await head_of(reader)
        body = await chunks_of(reader)
    assert status == 200
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-request-id"]
    events = [event.split(b"\n") for event in body.split(b"\n\n") if event]
    names = [name.decode() for name, _ in events]
    assert names == ["event: sources", "event: token", "event: token", "event: done"]
    values = [json.loads(data.removeprefix(b"data: ")) for _, data in events]
    assert [source["document_id"] for source in values[0]] == ["c", "a", "b"]
    assert values[1:3] == [{"text": "Because "}, {"text": "of [1]."}]
    assert values[3]["answer"] == "Because of [1]."
    assert "sources" not in values[3]
    assert values[3]["spans"] == [
        [{"start": 0, "end": 4}, {"start": 8, "end": 9}], [], [{"start": 5, "end": 7}]
    ]  # fmt: skip


async def test_a_failure_before_the_first_event_has_its_own_status() -> None:
    site = Site()
    site.store.error = ServiceError(Reason.VECTOR_DB_UNAVAILABLE, "gone", 2)
    async with connected(site) as (reader, writer):
        writer.write(post("/query", QUERY | {"stream": True}))
        status, headers = await head_of(reader)
        problem = json.loads(await body_of(reader, headers))
    assert status == 503
    assert problem["reason"] == "VECTOR_DB_UNAVAILABLE"


async def test_a_failure_after_the_first_event_is_the_last_event(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    site = Site()
    site.parts.generator.error = ServiceError(Reason.GENERATOR_UNAVAILABLE, "gone", 2)
    async with connected(site) as (reader, writer):
        writer.write(post("/query", QUERY | {"stream": True}))
        status, _ = await head_of(reader)
        body = await chunks_of(reader)
    assert status == 200
    last = body.split(b"\n\n")[-2]
    assert last.startswith(b"event: error\n")
    problem = json.loads(last.partition(b"data: ")[2])
    assert (problem["reason"], problem["status"]) == ("GENERATOR_UNAVAILABLE", 503)
    counted = site.parts.registry.get_sample_value(
        "rag_errors_total", {"type": "GENERATOR_UNAVAILABLE"}
    )
    assert counted == 1


async def test_a_stream_out_of_time_says_so_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """The budget may run out where no call with a deadline of its own is waited for."""
    caplog.set_level(logging.INFO)
    site = Site(budget_s=0.2)
    site.parts.generator.gate.clear()
    async with connected(site) as (reader, writer):
        writer.write(post("/query", QUERY | {"stream": True}))
        assert (await head_of(reader))[0] == 200
        body = await chunks_of(reader)
    last = body.split(b"\n\n")[-2]
    assert last.startswith(b"event: error\n")
    problem = json.loads(last.partition(b"data: ")[2])
    assert (problem["reason"], problem["status"]) == ("DEADLINE_EXCEEDED", 504)
    (line,) = [vars(one) for one in caplog.records if one.name == "gateway.requests"]
    assert (line["status"], line["reason"]) == (200, "DEADLINE_EXCEEDED")


async def test_a_silent_stream_is_kept_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse.EventStream.__init__, "__defaults__", (0.02,))
    site = Site()
    site.store.gate.clear()
    async with connected(site) as (reader, writer):
        writer.write(post("/query", QUERY | {"stream": True}))
        status, _ = await head_of(reader)
        assert status == 200
        for _ in range(3):
            assert await asyncio.wait_for(reader.readuntil(b": ping\n\n"), 5)
        site.store.gate.set()
        assert await asyncio.wait_for(reader.readuntil(b"event: done"), 5)


@pytest.mark.parametrize(
    ("setting", "status", "reason"),
    [
        ({}, 413, "BODY_TOO_LARGE"),
        ({"keys": ("one",)}, 401, "UNAUTHORIZED"),
        ({"most": 0}, 503, "OVERLOADED"),
    ],
)
async def test_a_body_held_back_and_not_wanted_ends_the_connection(
    setting: dict[str, Any], status: int, reason: str
) -> None:
    """Its bytes might follow or not: what comes next could not be told from them."""
    async with connected(Site(**setting)) as (reader, writer):
        writer.write(post("/search", b"", "Expect: 100-continue", "Content-Length: 50000000"))
        answered, headers = await head_of(reader)
        assert (answered, headers["connection"]) == (status, "close")
        assert json.loads(await body_of(reader, headers))["reason"] == reason
        assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_a_body_held_back_and_wanted_keeps_the_connection() -> None:
    async with connected(Site()) as (reader, writer):
        head, _, body = post("/search", QUERY, "Expect: 100-continue").partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        assert (await head_of(reader))[0] == 100
        writer.write(body)
        status, headers = await head_of(reader)
        assert status == 200
        assert "connection" not in headers


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_413_and_the_connection_lives(chunked: bool) -> None:
    site = Site(index_body_bytes=100_000)
    async with connected(site) as (reader, writer):
        body = b"x" * 1_000_000
        if chunked:
            framed = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
            writer.write(post("/index", framed, "Transfer-Encoding: chunked"))
        else:
            writer.write(post("/index", body))
        status, headers = await head_of(reader)
        problem = json.loads(await body_of(reader, headers))
        assert (status, problem["reason"]) == (413, "BODY_TOO_LARGE")
        writer.write(post("/search", QUERY))
        assert (await head_of(reader))[0] == 200


async def test_bodies_together_are_bounded_until_their_requests_are_over() -> None:
    site = Site(bodies_bytes=100_000)
    site.indexer.gate.clear()
    document = {"documents": [{"text": "x" * 70_000}]}
    async with connected(site) as (one, to_one), connected(site) as (other, to_other):
        to_one.write(post("/index", document))
        await until(site.indexer)
        framed = b"%x\r\n%s\r\n0\r\n\r\n" % (70_000, b"x" * 70_000)
        for refused in (
            post("/index", document),
            post("/index", framed, "Transfer-Encoding: chunked"),
        ):
            to_other.write(refused)
            status, headers = await head_of(other)
            assert status == 503
            told = json.loads(await body_of(other, headers))
            assert told["reason"] == "OVERLOADED"
            assert "MAX_BODY_BYTES" in told["detail"]
        to_other.write(post("/search", QUERY))
        status, headers = await head_of(other)
        assert status == 200
        await body_of(other, headers)
        site.indexer.gate.set()
        assert (await head_of(one))[0] == 200
        to_other.write(post("/index", document))
        assert (await head_of(other))[0] == 200


async def test_many_answers_on_one_connection() -> None:
    site = Site()
    async with connected(site) as (reader, writer):
        for _ in range(5):
            writer.write(post("/query", QUERY))
            status, headers = await head_of(reader)
            assert status == 200
            assert json.loads(await body_of(reader, headers))["answer"] == "Because of [1]."
    assert site.admission.inside() == 0


async def test_a_slow_answer_on_a_connection_that_stays_is_no_departure() -> None:
    """The watch for the caller's departure runs, and the next request is not its victim."""
    site = Site()
    async with connected(site) as (reader, writer):
        for _ in range(2):
            site.store.gate.clear()
            site.store.calls.clear()
            writer.write(post("/search", QUERY))
            await until(site.store)
            await asyncio.sleep(0.1)  # longer than the watch waits before it starts
            site.store.gate.set()
            status, headers = await head_of(reader)
            assert status == 200
            await body_of(reader, headers)


async def test_a_stream_of_many_tokens_arrives_whole() -> None:
    site = Site()
    end = Completion("extractive", "m", 0, 0, False, True, False)
    site.parts.generator.pieces = (*(f"{n} " for n in range(2000)), end)
    async with connected(site) as (reader, writer):
        writer.write(post("/query", QUERY | {"stream": True}))
        await head_of(reader)
        body = await chunks_of(reader)
    done = json.loads(body.split(b"event: done\ndata: ")[1])
    assert done["answer"] == "".join(f"{n} " for n in range(2000))
