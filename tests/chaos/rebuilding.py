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


async def rebuilding(
    folder: Path, model: dict[str, str], *, seed: int, rebuilds: int, kills: int
) -> Outcome:
    """So many rebuilds while nobody dies, then rebuilds through so many kills.

    In calm no read fails and no write is refused. Runs in `folder`, which is empty; model: as in
    `staged`.
    """
    async with staged(folder, model, seed, REINDEX_KEEP_SECONDS=str(KEEP_S)) as stage:
        cast = await _Cast.of(stage)
        killer = Killer(seed, stage.cluster, stage.ledger, TARGETS)
        await cast.calm(rebuilds)
        while (left := kills - killer.kills.total()) > 0:
            await cast.perform(partial(killer.rage, min(left, ROUND_KILLS)))
        stage.outcome.kills = killer.kills
        await cast.leave()
    return stage.outcome


class _Cast:
    """Who rebuilds and who reads, beside the stage's writers."""

    def __init__(self, stage: Stage, rebuilder: Rebuilder, readers: list[Reader]) -> None:
        self._stage = stage
        self.rebuilder = rebuilder
        self.readers = readers

    @classmethod
    async def of(cls, stage: Stage) -> _Cast:
        """Indexes what will be read, which has to succeed."""
        rng = random.Random(f"{stage.seed} readers")
        documents = {
            one: texts.fresh(rng, one, n)
            for n, one in enumerate(f"read/{m}" for m in range(READ_DOCUMENTS))
        }
        await _index(stage, documents)
        readers = [Reader(stage.seed + n, stage.cluster, documents) for n in range(READERS)]
        return cls(stage, Rebuilder(stage.seed, stage.cluster), readers)

    async def calm(self, rebuilds: int) -> None:
        """So many rebuilds, with nothing that may go wrong."""
        await self.perform(partial(self.rebuilder.until_succeeded, rebuilds), patient=True)
        for reader in self.readers:
            self._stage.outcome.faults += [f"a read failed: {how}" for how in reader.failed]
        if self.rebuilder.ends.keys() != {"succeeded"}:
            self._stage.outcome.faults.append(f"rebuilds ended as {dict(self.rebuilder.ends)}")
        self.rebuilder.cancels = True

    async def perform(
        self, act: Callable[[asyncio.Event], Awaitable[None]], *, patient: bool = False
    ) -> None:
        """Everybody at work; then what the last job left is waited for, and all is checked."""
        await self._stage.perform(act, self.rebuilder, *self.readers, patient=patient)
        await self.rebuilder.until_none_runs()
        await self._stage.check(await self.rebuilder.live_chunking())

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
