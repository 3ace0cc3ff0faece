"""A writer that leaves its documents as jobs, which outlive the gateway that took them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any, Final

import httpx
from chaos import texts
from chaos.calls import POLL_S, TIMEOUT_S, Calls
from chaos.ledger import Content, Ledger, Write
from chaos.processes import Cluster

# A job of a few documents that takes longer hangs, kills and restarts included.
JOB_TIMEOUT_S: Final = 180.0
MOST_DOCUMENTS: Final = 5
# One job in so many is cancelled at once.
CANCELLED: Final = 0.1


class JobWriter:
    """One client, with one job at a time; nobody else leaves jobs that index.

    A job that succeeded is an acknowledged write; of any other nothing is known.
    faults: jobs that were taken and are forgotten or hang.
    """

    def __init__(
        self, seed: int, cluster: Cluster, ledger: Ledger, document_ids: Sequence[str]
    ) -> None:
        self._rng = random.Random(f"{seed} jobs")
        self._mark = 0
        self._ledger = ledger
        self._ids = document_ids
        self.faults: list[str] = []
        self._calls = Calls(cluster, JOB_TIMEOUT_S, self.faults)

    async def run(self, over: asyncio.Event) -> None:
        """Leaves jobs until it is `over`; the one under way is watched to its end."""
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            while not over.is_set():
                await self._job(client)
                await asyncio.sleep(POLL_S)

    async def _job(self, client: httpx.AsyncClient) -> None:
        chosen = self._rng.sample(self._ids, self._rng.randint(1, MOST_DOCUMENTS))
        cancels = self._rng.random() < CANCELLED
        contents: dict[str, Content] = {}
        for one in chosen:
            self._mark += 1
            # Cut as the collection is: a job names one chunking for all.
            contents[one] = texts.fresh(self._rng, one, self._mark, own_chunking=False)
        body = {
            "documents": [
                {"id": one, "text": content.text, "metadata": texts.metadata(one, content.mark)}
                for one, content in contents.items()
            ]
        }
        started_s = time.monotonic()
        answer = await self._taken(client, body, cancels)
        ended_s = time.monotonic()
        for one, content in contents.items():
            done = answer == "succeeded"
            self._ledger.add(Write(one, content, started_s, ended_s, done, f"job {answer}"))

    async def _taken(self, client: httpx.AsyncClient, body: dict[str, Any], cancels: bool) -> str:
        """Leaves the job, and waits until there is none; how it ended."""
        response = await self._calls.call(client, "POST", "/index?wait=false", json=body)
        if response is None:
            # It may have been taken all the same, and be done later.
            try:
                await self._calls.until_none_runs(client, {"index"})
            except TimeoutError:
                self.faults.append(f"jobs did not end within {JOB_TIMEOUT_S:g} s")
            return "perhaps taken"
        if response.status_code != 202:
            reason = response.json()["reason"]
            if response.status_code != 503:
                self.faults.append(f"POST /index?wait=false: {response.status_code} {reason}")
            return f"refused: {response.status_code} {reason}"
        job_id = response.json()["job_id"]
        if cancels:
            await self._calls.call(client, "DELETE", f"/jobs/{job_id}")
        job = await self._calls.end(client, job_id)
        reason = job["error"]["reason"] if "error" in job else ""
        return f"{job['state']} {reason}".strip()
