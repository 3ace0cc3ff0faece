"""Calls to a gateway that may die over any of them, and jobs that outlive it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import Any, Final

import httpx
from chaos.processes import Cluster

TIMEOUT_S: Final = 60.0
POLL_S: Final = 0.1
ENDED: Final = frozenset({"succeeded", "failed", "cancelled"})


class Calls:
    """What one client asks.

    job_timeout_s: a job that takes longer hangs, kills and restarts included.
    faults: takes jobs that were taken and are forgotten or hang.
    """

    def __init__(self, cluster: Cluster, job_timeout_s: float, faults: list[str]) -> None:
        self._cluster = cluster
        self._job_timeout_s = job_timeout_s
        self._faults = faults

    async def call(
        self, client: httpx.AsyncClient, method: str, path: str, **how: Any
    ) -> httpx.Response | None:
        """The answer; None when the gateway died over it."""
        await self._cluster.gateway.listening.wait()
        try:
            return await client.request(method, self._cluster.url + path, **how)
        except httpx.TransportError:
            return None

    async def end(self, client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
        """The job at its end, through any number of lives of the gateway."""
        give_up_s = time.monotonic() + self._job_timeout_s
        while time.monotonic() < give_up_s:
            response = await self.call(client, "GET", f"/jobs/{job_id}")
            if response is not None and response.status_code == 404:
                self._faults.append(f"the job {job_id} was taken and is forgotten")
                return {"state": "forgotten"}
            if response is not None and response.status_code == 200:
                job: dict[str, Any] = response.json()
                if job["state"] in ENDED:
                    return job
            await asyncio.sleep(POLL_S)
        self._faults.append(f"the job {job_id} did not end within {self._job_timeout_s:g} s")
        return {"state": "hung"}

    async def until_none_runs(self, client: httpx.AsyncClient, kinds: Collection[str]) -> None:
        """Returns when no job of these kinds is queued or running. Raises TimeoutError."""
        async with asyncio.timeout(self._job_timeout_s):
            while True:
                response = await self.call(client, "GET", "/jobs")
                if response is not None and response.status_code == 200:
                    jobs = [job for job in response.json()["jobs"] if job["kind"] in kinds]
                    if all(job["state"] in ENDED for job in jobs):
                        return
                await asyncio.sleep(POLL_S)
