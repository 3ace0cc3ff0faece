"""The open-loop client, against a server of the test's own; and what counts of its calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from bench.calls import OK, REFUSED, Call, Load, Window, good
from bench.client import call_of, drive
from bench.schedule import Closed, Even, Poisson
from runtime.errors import STATUS_DETAILS_KEY, Reason, ServiceError, encode

METHOD = "/test.Echo/Echo"
Serve = Callable[[bytes, Any], Awaitable[bytes]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server whose one method is `serve`."""
    service, method = METHOD.strip("/").split("/")
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handler = grpc.unary_unary_rpc_method_handler(serve)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {method: handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.channel_ready()
        yield channel
    await server.stop(None)


async def test_an_open_loop_does_not_wait_for_answers() -> None:
    """All calls are inside at once, though none is answered before the last has come."""
    came: list[bytes] = []
    all_in = asyncio.Event()

    async def wait_for_all(request: bytes, context: Any) -> bytes:
        came.append(request)
        if len(came) == 10:
            all_in.set()
        await all_in.wait()
        context.set_trailing_metadata((("rag-queue-ms", "1.000"), ("rag-model-ms", "2.000")))
        return request

    load = Load(METHOD, (b"a", b"b"), Even(100.0, seed=0), 0.1, timeout_s=30.0)
    async with serving(wait_for_all) as channel:
        calls = [call_of(sent) for sent in await drive(channel, load)]
    assert sorted(came) == [b"a"] * 5 + [b"b"] * 5
    assert [call.code for call in calls] == [OK] * 10
    assert {(call.queue_ms, call.model_ms) for call in calls} == {(1.0, 2.0)}
    assert all(call.took_s > 0 and call.late_s > -0.002 for call in calls)


async def test_a_closed_loop_keeps_so_many_in_flight() -> None:
    inside = most = 0
    full = asyncio.Event()

    async def count(request: bytes, _: Any) -> bytes:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        if inside == 3:
            full.set()
        await full.wait()
        inside -= 1
        return request

    load = Load(METHOD, (b"a",), Closed(3), 0.05, timeout_s=30.0)
    async with serving(count) as channel:
        assert len(await drive(channel, load)) >= 3
    assert most == 3


async def test_refusals_and_deadlines_are_told_apart() -> None:
    async def refuse_or_stay(request: bytes, context: Any) -> bytes:
        if request == b"refuse":
            error = ServiceError(Reason.QUEUE_FULL, "full", 1.5)
            details = ((STATUS_DETAILS_KEY, encode(error)),)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", details)
        await asyncio.Event().wait()
        return request

    load = Load(METHOD, (b"refuse", b"stay"), Poisson(40.0, seed=5), 0.2, timeout_s=0.3)
    async with serving(refuse_or_stay) as channel:
        calls = [call_of(sent) for sent in await drive(channel, load)]
    by_code = {call.code: call for call in calls}
    assert set(by_code) == {REFUSED, "DEADLINE_EXCEEDED"}
    assert by_code[REFUSED].reason == "QUEUE_FULL"
    assert by_code[REFUSED].retry_after_s == 1.5
    assert by_code["DEADLINE_EXCEEDED"].latency_s == pytest.approx(0.3, abs=0.25)


def test_a_late_client_counts_as_latency() -> None:
    call = Call(due_s=1.0, late_s=0.4, took_s=0.7, code=OK)
    assert call.latency_s == pytest.approx(1.1)
    assert call.done_s == pytest.approx(2.1)
    assert not good(call, 1.0)
    assert good(call, 1.2)
    assert not good(Call(0.0, 0.0, 0.1, REFUSED), 1.0)


def test_the_window_counts_answers_by_their_end_and_calls_by_their_beginning() -> None:
    window = Window(1.0, 3.0)
    calls = [
        Call(0.5, 0.0, 0.2, OK),  # done before it
        Call(0.5, 0.0, 0.6, OK),  # done inside
        Call(2.0, 0.0, 0.5, OK),  # all inside
        Call(2.9, 0.0, 0.5, OK),  # done after it
        Call(3.1, 0.0, 0.5, OK),
    ]
    assert window.rate_done(calls, lambda call: True) == 2 / 2.0
    assert window.rate_done(calls, lambda call: call.took_s > 0.55) == 1 / 2.0
    assert [call.due_s for call in window.due(calls)] == [2.0, 2.9]
