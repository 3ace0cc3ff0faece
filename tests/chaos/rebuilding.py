"""Rebuilds of the collection, one after another, while it is read, written, and killed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import httpx
from chaos import texts
from chaos.killer import Killer
from chaos.ledger import Content
from chaos.readers import Reader
from chaos.rebuilds import Rebuilder
from chaos.stage import COLLECTION, Outcome, Stage, staged

from gateway.search.types import Chunking

# Documents that are read all the time, and never written after the start.
READ_DOCUMENTS: Final = 3
READERS: Final = 2
ROUND_KILLS: Final = 10
# The gateway above all: it is the one that rebuilds.
TARGETS: Final = {"gateway": 5, "store": 3, "embedder": 1}
# The least that may be set, so that old generations go while we watch.
KEEP_S: Final = 10
GONE_TIMEOUT_S: Final = 120.0
POLL_S: Final = 0.2
TIMEOUT_S: Final = 60.0


async def storm_of_rebuilds(
    folder: Path, model: dict[str, str], *, seed: int, kills: int
) -> Outcome:
    """Rebuilds, reads and writes while processes die; model: as in `staged`."""
    async with staged(folder, model, seed, REINDEX_KEEP_SECONDS=str(KEEP_S)) as stage:
        killer = Killer(seed, stage.cluster, stage.ledger, TARGETS)
        cast = await _Cast.of(stage, cancels=True)
        while (left := kills - killer.kills.total()) > 0:
            await cast.perform(partial(killer.rage, min(left, ROUND_KILLS)))
        stage.outcome.kills = killer.kills
        await cast.leave()
    return stage.outcome


async def calm_rebuilds(
    folder: Path, model: dict[str, str], *, seed: int, rebuilds: int
) -> Outcome:
    """So many rebuilds while nobody dies: no read fails and no write is refused."""
    async with staged(folder, model, seed, patient=True, REINDEX_KEEP_SECONDS=str(KEEP_S)) as stage:
        cast = await _Cast.of(stage, most=rebuilds)
        await cast.perform(_idle)
        for reader in cast.readers:
            stage.outcome.faults += [f"a read failed: {how}" for how in reader.failed]
        await cast.leave()
        if cast.rebuilder.ends != {"succeeded": rebuilds}:
            stage.outcome.faults.append(f"rebuilds ended as {dict(cast.rebuilder.ends)}")
    return stage.outcome


async def _idle(over: asyncio.Event) -> None:
    await over.wait()


class _Cast:
    """Who rebuilds and who reads, beside the stage's writers."""

    def __init__(self, stage: Stage, rebuilder: Rebuilder, readers: list[Reader]) -> None:
        self._stage = stage
        self.rebuilder = rebuilder
        self.readers = readers

    @classmethod
    async def of(cls, stage: Stage, *, most: int = 0, cancels: bool = False) -> _Cast:
        """Indexes what will be read, which has to succeed."""
        rng = random.Random(f"{stage.seed} readers")
        documents = {
            one: texts.fresh(rng, one, n)
            for n, one in enumerate(f"read/{m}" for m in range(READ_DOCUMENTS))
        }
        await _index(stage, documents)
        readers = [Reader(stage.seed + n, stage.cluster, documents) for n in range(READERS)]
        rebuilder = Rebuilder(stage.seed, stage.cluster, most=most, cancels=cancels)
        return cls(stage, rebuilder, readers)

    async def perform(self, act: Callable[[asyncio.Event], Awaitable[None]]) -> None:
        """Everybody at work; then what the last job left is waited for, and all is checked."""
        await self._stage.perform(act, self.rebuilder, *self.readers)
        await self.rebuilder.until_none_runs()
        await self._stage.check(await self._chunking())

    async def leave(self) -> None:
        """Waits until one generation is left, and adds up what was seen."""
        await self._until_alone()
        outcome = self._stage.outcome
        outcome.counts += Counter(
            {f"rebuilds, {end}": count for end, count in self.rebuilder.ends.items()}
        )
        for reader in self.readers:
            outcome.counts["reads"] += reader.answered
            outcome.counts += Counter(f"reads that failed, {how}" for how in reader.failed)
            outcome.faults += reader.torn
        outcome.faults += self.rebuilder.faults

    async def _chunking(self) -> Chunking:
        """Of the live generation."""
        cluster = self._stage.cluster
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            response = await client.get(f"{cluster.url}/collections")
        assert response.status_code == 200, response.text
        (own,) = [one for one in response.json()["collections"] if one["name"] == COLLECTION]
        return Chunking(own["chunk_size"], own["overlap"])

    async def _until_alone(self) -> None:
        """Until old and given-up generations are gone, with their processes and folders."""
        cluster = self._stage.cluster
        folder = cluster.data_dir / "store" / COLLECTION
        left: list[str] = []
        for _ in range(round(GONE_TIMEOUT_S / POLL_S)):
            left = sorted(path.name for path in folder.iterdir() if path.is_dir())
            if len(left) == 1 and len(cluster.store_pids()) == 1:
                return
            await asyncio.sleep(POLL_S)
        self._stage.outcome.faults.append(
            f"after {GONE_TIMEOUT_S:g} s there are generations {left} and "
            f"{len(cluster.store_pids())} store processes"
        )


async def _index(stage: Stage, documents: dict[str, Content]) -> None:
    body = {
        "documents": [
            {"id": one, "text": content.text, "metadata": texts.metadata(one, content.mark)}
            for one, content in documents.items()
        ]
    }
    async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
        response = await client.post(f"{stage.cluster.url}/index", json=body)
    assert response.status_code == 200, response.text
    for one, content in documents.items():
        stage.ledger.settle(one, content)
        stage.document_ids.append(one)
