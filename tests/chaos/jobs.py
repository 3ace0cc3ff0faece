"""A writer that leaves its documents as jobs, which outlive the gateway that took them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any, Final

import httpx
from chaos import texts
from chaos.ledger import Content, Ledger, Write
from chaos.processes import Cluster

TIMEOUT_S: Final = 60.0
# A job of a few documents that takes longer hangs, kills and restarts included.
JOB_TIMEOUT_S: Final = 180.0
POLL_S: Final = 0.1
MOST_DOCUMENTS: Final = 5
ENDED: Final = frozenset({"succeeded", "failed", "cancelled"})
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
        self._cluster = cluster
        self._ledger = ledger
        self._ids = document_ids
        self.faults: list[str] = []

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
        response = await self._call(client, "POST", "/index?wait=false", json=body)
        if response is None:
            # It may have been taken all the same, and be done later.
            await self._until_none(client)
            return "perhaps taken"
        if response.status_code != 202:
            reason = response.json()["reason"]
            if response.status_code != 503:
                self.faults.append(f"POST /index?wait=false: {response.status_code} {reason}")
            return f"refused: {response.status_code} {reason}"
        job_id = response.json()["job_id"]
        if cancels:
            await self._call(client, "DELETE", f"/jobs/{job_id}")
        return await self._end(client, job_id)

    async def _end(self, client: httpx.AsyncClient, job_id: str) -> str:
        give_up_s = time.monotonic() + JOB_TIMEOUT_S
        while time.monotonic() < give_up_s:
            response = await self._call(client, "GET", f"/jobs/{job_id}")
            if response is not None and response.status_code == 404:
                self.faults.append(f"the job {job_id} was taken and is forgotten")
                return "forgotten"
            if response is not None and response.status_code == 200:
                job = response.json()
                if job["state"] in ENDED:
                    reason = job["error"]["reason"] if "error" in job else ""
                    return f"{job['state']} {reason}".strip()
            await asyncio.sleep(POLL_S)
        self.faults.append(f"the job {job_id} did not end within {JOB_TIMEOUT_S:g} s")
        return "hung"

    async def _until_none(self, client: httpx.AsyncClient) -> None:
        """Returns when no job that indexes is queued or running."""
        give_up_s = time.monotonic() + JOB_TIMEOUT_S
        while time.monotonic() < give_up_s:
            response = await self._call(client, "GET", "/jobs")
            if response is not None and response.status_code == 200:
                jobs = response.json()["jobs"]
                if all(job["state"] in ENDED for job in jobs if job["kind"] == "index"):
                    return
            await asyncio.sleep(POLL_S)
        self.faults.append(f"jobs did not end within {JOB_TIMEOUT_S:g} s")

    async def _call(
        self, client: httpx.AsyncClient, method: str, path: str, **how: Any
    ) -> httpx.Response | None:
        """The answer; None when the gateway died over it."""
        await self._cluster.gateway.listening.wait()
        try:
            return await client.request(method, self._cluster.url + path, **how)
        except httpx.TransportError:
            return None
