"""The bare servers, and the clients that measure them."""

from __future__ import annotations

import itertools
import os

import psutil

from bench import client, floor
from bench.calls import OK, Load
from bench.load import closed_loop, post
from bench.processes import CpuMeter
from bench.schedule import Closed


async def test_the_floor_answers_over_grpc_and_leaves_nothing_behind() -> None:
    with floor.running() as running:
        meter = CpuMeter(running.pids | {"client": os.getpid()})
        requests = itertools.repeat(post(running.address, "/echo", {"query": "Hello"}))
        sample = await closed_loop(running.address, requests, clients=2, duration_s=0.5)
        spent_s = meter.spent_s()
    assert {(reply.status, reply.body) for reply in sample.replies} == {
        (200, b'{"query": "Hello"}')
    }
    # Both processes worked for it: the route really made its call.
    assert spent_s["floor"] > 0
    assert spent_s["echo"] > 0
    assert not any(psutil.pid_exists(pid) for pid in running.pids.values())


def test_a_bare_server_computes_and_says_how_long() -> None:
    load = Load(floor.METHOD, (b"x",), Closed(1), duration_s=0.3, timeout_s=10.0)
    with floor.computing(5.0) as target, client.running(target, floor.SERVICE, priority=0) as send:
        outcome = send(load)
    assert {call.code for call in outcome.calls} == {OK}
    for call in outcome.calls:
        assert call.model_ms is not None
        assert 0 < call.model_ms < call.took_s * 1000
        assert call.queue_ms == 0
