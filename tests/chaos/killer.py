"""Chooses by chance who dies, and when."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from typing import Final

from chaos.ledger import Ledger
from chaos.processes import Cluster, kill

TARGETS: Final = {"gateway": 4, "store": 4, "embedder": 1}
# Acknowledged writes between two kills, at most; then the moment, inside the next writes.
MOST_WRITES: Final = 12
MOST_PHASE_S: Final = 0.1
# One kill in so many follows the one before at once, into the start of what was killed.
AGAIN: Final = 0.15
MOST_AGAIN_S: Final = 1.5
# Nothing is acknowledged for so long only if something does not come back.
STUCK_S: Final = 120.0


class Killer:
    """targets: who dies how often, in proportion. kills: who died so far."""

    def __init__(
        self, seed: int, cluster: Cluster, ledger: Ledger, targets: Mapping[str, int] = TARGETS
    ) -> None:
        self._rng = random.Random(f"{seed} killer")
        self._cluster = cluster
        self._ledger = ledger
        self._targets = targets
        self.kills: Counter[str] = Counter()

    async def rage(self, kills: int, over: asyncio.Event) -> None:
        """So many kills; `over` is set before the last one, which leaves a fresh gateway.

        Raises TimeoutError when writes are no longer acknowledged.
        """
        for _ in range(kills - 1):
            await self._moment()
            (target,) = self._rng.choices([*self._targets], [*self._targets.values()])
            await self._kill(target)
        await self._moment()
        over.set()
        await self._kill("gateway")

    async def _moment(self) -> None:
        drawn, phase = self._rng.random(), self._rng.random()
        writes = self._rng.randrange(MOST_WRITES)
        if drawn < AGAIN:
            await asyncio.sleep(phase * MOST_AGAIN_S)
            return
        await self._ledger.until_acknowledged(self._ledger.acknowledged + writes, STUCK_S)
        await asyncio.sleep(phase * MOST_PHASE_S)

    async def _kill(self, target: str) -> None:
        if target == "store":
            pids = self._cluster.store_pids()
            if not pids:
                return  # on its way back from the kill before
            kill(self._rng.choice(pids))
        else:
            process = self._cluster.gateway if target == "gateway" else self._cluster.embedder
            await asyncio.wait_for(process.started.wait(), STUCK_S)
            await process.kill()
        self.kills[target] += 1
