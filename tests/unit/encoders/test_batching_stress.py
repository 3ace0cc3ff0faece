"""The batcher on real threads, with callers that leave, deadlines, and inputs that fail."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import pytest
from prometheus_client import CollectorRegistry

from encoders.batch_metrics import BatchMetrics
from encoders.batching import Batcher
from encoders.limits import Limits
from encoders.streams import ModelThreads
from runtime.errors import Reason, ServiceError

CALLS = 400


@dataclass(frozen=True)
class Row:
    """Of call `call`, the one at `index`."""

    call: int
    index: int
    poisoned: bool


class Model:
    """Takes up to a millisecond a batch, fails on what is poisoned, and notes who ran beside."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._lock = Lock()
        self._running = 0
        self.most_at_once = 0
        self.beside_probe: list[int] = []

    def run(self, batch: Sequence[Row]) -> list[tuple[int, int]]:
        with self._lock:
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
            taken_s = self._random.choice((0.0, 1e-4, 1e-3))
        try:
            time.sleep(taken_s)  # the model's work
            if any(row.poisoned for row in batch):
                raise RuntimeError("poisoned")
            return [(row.call, row.index) for row in batch]
        finally:
            with self._lock:
                self._running -= 1

    def probe(self) -> None:
        self.beside_probe.append(self._running)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("streams", [1, 3])
async def test_everyone_is_answered_once_whatever_happens(streams: int) -> None:
    rng = random.Random(streams)
    model, threads = Model(streams), ModelThreads()
    await threads.warm(streams, int)
    health: list[bool] = []
    given_up: list[None] = []

    async def on_health(serving: bool) -> None:
        health.append(serving)

    limits = Limits(batch_tokens=100, batch_items=8, bulk_quantum_s=0.002, queue_tokens=20_000)
    batcher: Batcher[Row, tuple[int, int]] = Batcher(
        model.run,
        limits,
        BatchMetrics(CollectorRegistry()),
        probe=model.probe,
        on_health=on_health,
        streams=threads,
        tokens_per_s=50_000.0,
        give_up=lambda: given_up.append(None),
    )
    batcher.start()

    async def call(number: int) -> str:
        rows = [Row(number, n, rng.random() < 0.01) for n in range(rng.randint(1, 12))]
        asked = batcher.submit(
            rows,
            [rng.randint(1, 60) for _ in rows],
            lane=rng.choice(("interactive", "bulk")),
            remaining_s=rng.choice((None, 0.5, 0.02, 0.002)),
        )
        leaves = rng.random() < 0.2
        try:
            answer = await asyncio.wait_for(asked, rng.random() * 0.01 if leaves else 15)
        except ServiceError as error:
            blamed = error.reason == Reason.MODEL_FAILED and not any(row.poisoned for row in rows)
            return "blamed for others" if blamed else error.reason
        except TimeoutError:
            assert leaves, "nobody answered"
            return "left"
        assert answer.results == [(row.call, row.index) for row in rows]
        assert answer.queue_s >= 0
        assert answer.model_s >= 0
        return "answered"

    asked: list[asyncio.Task[str]] = []
    while len(asked) < CALLS:
        burst = range(len(asked), len(asked) + rng.randint(1, 20))
        asked += [asyncio.create_task(call(number)) for number in burst]
        await asyncio.sleep(rng.random() * 0.01)  # as callers come
    outcomes = Counter(await asyncio.gather(*asked))
    # Whatever ends in these ways, not all of them must: that depends on the machine.
    assert outcomes["answered"] > 0
    assert set(outcomes) <= {"answered", "left", *(
        Reason.QUEUE_FULL, Reason.DEADLINE_EXCEEDED, Reason.MODEL_FAILED,
    )}  # fmt: skip
    assert model.most_at_once <= streams
    assert set(model.beside_probe) <= {0}
    assert health == given_up == []
    assert [queue.tokens for queue in batcher._waiting.lanes.values()] == [0, 0]
    await batcher.aclose()
