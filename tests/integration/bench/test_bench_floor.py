"""The two processes of the floor, and the client that measures them."""

from __future__ import annotations

import itertools
import os

import psutil

from bench import floor
from bench.load import closed_loop, post
from bench.processes import CpuMeter


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
