"""Jobs for tests: work that does as it is told, and time that stands still until it is let go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry

from gateway.indexing import NewDocument
from gateway.jobs.job import Job, JobError, Kind
from gateway.jobs.journal import Journal
from gateway.jobs.progress import Clock, Progress
from gateway.jobs.runner import JobRunner
from gateway.jobs.table import JobLimits, NewJob
from gateway.metrics import GatewayMetrics

LIMITS = JobLimits(queued=3, kept=2, spool_bytes=10_000, stall_s=600)
INDEX = NewJob("index", "documents", None, 100)
REINDEX = NewJob("reindex", "documents", None)
TIME = "2026-01-01T00:00:00.000Z"


def a_job(job_id: str = "a", number: int = 1, kind: Kind = "index", total: int = 0) -> Job:
    return Job(
        id=job_id,
        number=number,
        kind=kind,
        collection="documents",
        chunking=None,
        created_at=TIME,
        total=total,
    )


def some_documents(count: int) -> list[NewDocument]:
    return [NewDocument(f"d{at}", f"text\r\n{at}\u2028", {"n": at}) for at in range(count)]


class FakeTime:
    """Sleeps wait until `flows` is set, and then pass at once."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.flows = asyncio.Event()
        self.clock = Clock(lambda: TIME, lambda: self.now_s, self.sleep)

    async def sleep(self, seconds: float) -> None:
        await self.flows.wait()
        self.now_s += seconds
        await asyncio.sleep(0)


@dataclass
class FakeWork:
    """started: set by each run; gate: while clear, a run waits; what: played by each run."""

    what: Callable[[Job, Progress], JobError | None] = lambda job, progress: None
    started: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    ran: list[Job] = field(default_factory=list)
    abandoned: list[str] = field(default_factory=list)
    holds_on: bool = False
    # Asked to clean up: what it cannot do (once each), and whether it is too late.
    away: list[Exception] = field(default_factory=list)
    late: bool = False

    async def run(self, job: Job, progress: Progress) -> JobError | None:
        self.ran.append(job)
        progress.report(progress.done + 1, max(job.total, 2))
        self.started.set()
        while True:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                if not self.holds_on:
                    raise
            else:
                return self.what(job, progress)

    async def abandon(self, job: Job) -> bool:
        if self.away:
            raise self.away.pop()
        self.abandoned.append(job.id)
        return self.late


@dataclass
class Jobs:
    """A runner that runs, and what it stands on."""

    folder: Path
    limits: JobLimits = LIMITS
    work: FakeWork = field(default_factory=FakeWork)
    time: FakeTime = field(default_factory=FakeTime)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self.journal = Journal(self.folder)
        self.runner = JobRunner(
            self.journal,
            {"index": self.work, "reindex": self.work},
            self.limits,
            GatewayMetrics(self.registry),
            self.time.clock,
        )

    async def ended(self, job_id: str) -> Job:
        """The job, once nothing becomes of it any more and that is on the disk."""
        async with asyncio.timeout(20):
            while not (job := self.runner.get(job_id)).ended or self.runner._running is not None:
                await asyncio.sleep(0.001)
        return job

    async def taken(self) -> None:
        """Returns once the runner has the folder."""
        async with asyncio.timeout(20):
            while self.runner._refusal is not None:
                await asyncio.sleep(0.001)


@asynccontextmanager
async def running(jobs: Jobs) -> AsyncIterator[Jobs]:
    await jobs.runner.start()
    loop = asyncio.create_task(jobs.runner.run())
    try:
        yield jobs
    finally:
        await jobs.runner.aclose()
        loop.cancel()
        await asyncio.wait([loop])
