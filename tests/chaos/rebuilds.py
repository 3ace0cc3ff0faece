"""Rebuilds of the collection, one after the other, some of them cancelled."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Collection
from typing import Final

import httpx
from chaos.calls import ENDED, POLL_S, TIMEOUT_S, Calls
from chaos.processes import Cluster

from gateway.search.types import Chunking

COLLECTION: Final = "documents"
# A rebuild of a few hundred chunks that takes longer hangs, kills and restarts included.
JOB_TIMEOUT_S: Final = 120.0
CANCELLED: Final = 0.2
MOST_CANCEL_S: Final = 1.0
_CHUNKINGS: Final = (Chunking(128, 0), Chunking(256, 40), Chunking(512, 50), Chunking(96, 20))
# Not now: the part that is needed is dead, or the last job's claim is still fresh.
_REFUSALS: Final = frozenset({409, 503, 504})


class Rebuilder:
    """One client that asks for the next rebuild when the last has ended.

    cancels: whether it cancels some of them.
    ends: jobs by how they ended; faults: what no death of a process explains.
    """

    def __init__(self, seed: int, cluster: Cluster) -> None:
        self._rng = random.Random(f"{seed} rebuilder")
        self.cancels = False
        self._live: Chunking | None = None  # while nothing may be under way
        self._ended_one = asyncio.Event()
        self.ends: Counter[str] = Counter()
        self.faults: list[str] = []
        self._calls = Calls(cluster, JOB_TIMEOUT_S, self.faults)

    async def run(self, over: asyncio.Event) -> None:
        """Asks for rebuilds until it is `over`; the one under way is watched to its end."""
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            while not over.is_set():
                await self._rebuild(client)

    async def _rebuild(self, client: httpx.AsyncClient) -> None:
        if self._live is None:
            await self.until_none_runs({"reindex"})
            self._live = await self.live_chunking()
        # Another one, so that the live one tells whether it switched.
        asked = self._rng.choice([one for one in _CHUNKINGS if one != self._live])
        cancels = self._rng.random() < CANCELLED and self.cancels
        cancel_s = self._rng.uniform(0, MOST_CANCEL_S)
        body = {"chunk_size": asked.chunk_size, "overlap": asked.overlap}
        response = await self._calls.call(client, "POST", "/reindex", json=body)
        if response is None or response.status_code == 504:
            self._live = None  # it may have been taken all the same
        if response is None or response.status_code in _REFUSALS:
            said = "connection lost" if response is None else response.json()["reason"]
            self.ends[f"refused: {said}"] += 1
            self._ended_one.set()
            await asyncio.sleep(POLL_S)
            return
        if response.status_code != 202:
            self.faults.append(f"POST /reindex: {response.status_code} {response.text}")
            await asyncio.sleep(POLL_S)
            return
        job_id = response.json()["job_id"]
        if cancels:
            await asyncio.sleep(cancel_s)
            await self._calls.call(client, "DELETE", f"/jobs/{job_id}")
        job = await self._calls.end(client, job_id)
        if job["state"] == "failed":
            self.ends[f"failed: {job['error']['reason']}"] += 1
        else:
            self.ends[job["state"]] += 1
        await self._check_live(job_id, job["state"], asked)
        self._ended_one.set()

    async def _check_live(self, job_id: str, state: str, asked: Chunking) -> None:
        """A job has taken effect if it says that it succeeded, and else left no trace."""
        before, self._live = self._live, None
        if state not in ENDED:
            return
        self._live = await self.live_chunking()
        expected = asked if state == "succeeded" else before
        if self._live != expected:
            self.faults.append(
                f"the job {job_id} has {state}: live is {self._live}, and not {expected}"
            )

    async def until_succeeded(self, count: int, over: asyncio.Event) -> None:
        """Sets `over` once so many rebuilds succeeded. Raises RuntimeError at any other end."""
        while self.ends["succeeded"] < count:
            self._ended_one.clear()
            await asyncio.wait_for(self._ended_one.wait(), 2 * JOB_TIMEOUT_S)
            if {*self.ends} != {"succeeded"}:
                raise RuntimeError(f"rebuilds ended as {dict(self.ends)}: {self.faults}")
        over.set()

    async def until_none_runs(self, kinds: Collection[str] = ("index", "reindex")) -> None:
        """Returns when no job of these kinds is queued or running. Raises TimeoutError."""
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            await self._calls.until_none_runs(client, kinds)

    async def live_chunking(self) -> Chunking:
        """Of the live generation. Raises TimeoutError."""
        async with (
            asyncio.timeout(JOB_TIMEOUT_S),
            httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client,
        ):
            while True:
                response = await self._calls.call(client, "GET", "/collections")
                if response is not None and response.status_code == 200:
                    found = response.json()["collections"]
                    (own,) = [one for one in found if one["name"] == COLLECTION]
                    return Chunking(own["chunk_size"], own["overlap"])
                await asyncio.sleep(POLL_S)
