"""Replicas of the embedder die, leave and arrive under load, and no question notices."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from uuid import uuid4

import httpx
import pytest

from bench import cluster
from bench.cluster import Cluster, calls
from bench.worker import Worker

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere loopback has one address, and replicas need several"
)

CLIENTS = 6
# A connection's life is what makes clients look for new replicas: 60 s by default.
AGE_S = 1
PATIENCE_S = 60.0
DOCUMENTS = [
    {"id": f"fact-{n}", "text": f"The lighthouse number {n} was painted in colour {n * 7}."}
    for n in range(20)
]
TEXT = "The keeper of the lighthouse wrote down what the sea had brought that day. " * 100


@pytest.fixture(scope="module")
def running() -> Iterator[Cluster]:
    """Two embedders, and one of everything else."""
    with cluster.running(
        embedders=2,
        rerankers=1,
        gateway={"rerank_candidates": 1},
        threads=1,
        max_connection_age_seconds=AGE_S,
    ) as running:
        answer = httpx.post(f"{running.url}/index", json={"documents": DOCUMENTS}, timeout=60)
        assert answer.status_code == 200, answer.text
        yield running


class Load:
    """Questions and documents, one after the other in every client, all of them new."""

    def __init__(self, url: str) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=60, trust_env=False)
        self.answered = 0
        self.faults: list[str] = []

    @asynccontextmanager
    async def on(self) -> AsyncIterator[None]:
        """Inside the block all clients are busy; it ends when they have their last answers."""
        over = asyncio.Event()
        async with self._client, asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._ask(over))
            group.create_task(self._index(over))
            try:
                yield
            finally:
                over.set()

    async def more(self) -> None:
        """Returns when two answers of every client, on average, have come from now on."""
        wanted = self.answered + 2 * CLIENTS
        await eventually(lambda: self._has(wanted), "questions are answered")

    async def _has(self, answered: int) -> bool:
        return self.answered >= answered

    async def _ask(self, over: asyncio.Event) -> None:
        while not over.is_set():
            question = f"Which colour has the lighthouse number 7? {uuid4().hex}"
            response = await self._client.post("/query", json={"query": question})
            if response.status_code != 200 or "dense" in response.json()["degraded"]:
                self.faults.append(response.text)
            self.answered += 1

    async def _index(self, over: asyncio.Event) -> None:
        for number in itertools.count():
            if over.is_set():
                return
            document = {"id": f"diary-{number % 3}", "text": f"{TEXT} {uuid4().hex}"}
            response = await self._client.post("/index", json={"documents": [document]})
            if response.status_code != 200:
                self.faults.append(response.text)


async def eventually(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Asks again and again; AssertionError after PATIENCE_S."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                if await holds():
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {PATIENCE_S} s: {what}") from None


@pytest.fixture
async def two(running: Cluster) -> Cluster:
    """The same with two embedders that the gateway knows, whatever the test before has left."""
    embedders = running.embedders
    while len(embedders.listed) < 2:
        embedders.announce(await asyncio.to_thread(embedders.start))
    async with Load(running.url).on():
        await asyncio.gather(*(called(replica) for replica in embedders.listed))
    return running


async def test_a_replica_that_is_killed_takes_no_question_with_it(two: Cluster) -> None:
    load = Load(two.url)
    victim = two.embedders.listed[0]
    async with load.on():
        await called(victim)
        two.embedders.kill(victim)
        await load.more()
    assert load.faults == []


async def test_a_replica_that_is_added_is_found_and_used(running: Cluster) -> None:
    load = Load(running.url)
    async with load.on():
        newcomer = await asyncio.to_thread(running.embedders.start)
        running.embedders.announce(newcomer)
        await called(newcomer)
    assert load.faults == []


async def test_a_replica_that_is_stopped_finishes_what_it_has(two: Cluster) -> None:
    load = Load(two.url)
    leaver = two.embedders.listed[0]
    async with load.on():
        await called(leaver)
        await asyncio.to_thread(two.embedders.stop, leaver)
        await load.more()
    assert load.faults == []
    assert leaver.process.returncode == 0


async def called(replica: Worker) -> None:
    """Returns when the replica has answered more calls than it had."""
    before = await asyncio.to_thread(calls, replica, "EmbedTexts")

    async def has_more() -> bool:
        return await asyncio.to_thread(calls, replica, "EmbedTexts") > before

    await eventually(has_more, "the replica is called")
