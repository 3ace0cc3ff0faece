"""Runs the jobs of this gateway, one at a time, in the order they were taken."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final, TypeVar

from msgspec.structs import replace

from gateway.admission import draining
from gateway.indexing import Documents, NewDocument
from gateway.jobs.job import DocumentOutcome, Job, Kind
from gateway.jobs.journal import Journal
from gateway.jobs.progress import Clock
from gateway.jobs.running import Running, Watching, run_job
from gateway.jobs.table import RETRY_AFTER_S, JobLimits, JobTable, NewJob
from gateway.jobs.work import Work
from gateway.metrics import GatewayMetrics
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

log = logging.getLogger(__name__)

# Between two tries to take the folder from a gateway that runs the jobs, or is leaving.
TAKE_PAUSE_S: Final = 5.0
# How long a caller who cancels is kept waiting for the job to stop.
CANCEL_WAIT_S: Final = 5.0
_OFF: Final = "This gateway runs no jobs (JOBS=false); ask the one that does."

T = TypeVar("T")


class JobRunner:
    """The jobs of this gateway. Public calls raise ServiceError JOBS_ELSEWHERE, and why, while
    it runs none.

    journal: None for a gateway that shall run no jobs.
    """

    def __init__(
        self,
        journal: Journal | None,
        works: Mapping[Kind, Work],
        limits: JobLimits,
        metrics: GatewayMetrics,
        clock: Clock | None = None,
    ) -> None:
        self._journal = journal
        self._works = works
        self._limits = limits
        self._metrics = metrics
        self._clock = Clock() if clock is None else clock
        self._refusal: str | None = _OFF if journal is None else "The jobs are being read."
        self._table = JobTable(limits)
        self._running: Running | None = None
        self._task: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self._stopping = False
        metrics.watch_jobs(self._table.count, self._idle_s)

    async def start(self) -> None:
        """Takes the folder and reads the jobs, if it can; `run` tries again if not."""
        if self._journal is None:
            return
        try:
            taken = await asyncio.to_thread(self._journal.open)
            jobs = await asyncio.to_thread(self._journal.load) if taken else []
        except OSError as error:
            self._journal.close()
            self._refuse(f"This gateway cannot keep jobs in DATA_DIR ({error.strerror}).")
            return
        if not taken:
            self._refuse("Another gateway with the same DATA_DIR runs the jobs; ask that one.")
            return
        for job in jobs:
            self._table.put(_after_restart(job))
        self._refusal = None
        if waiting := len(self._table.unended()):
            log.info("Jobs go on.", extra={"jobs": waiting})
        self._arrived.set()

    async def run(self) -> None:
        """Runs jobs until cancelled or stopped; one under way is `stop`'s to end."""
        while self._refusal is not None:
            if self._journal is None:
                return
            await self._clock.sleep(TAKE_PAUSE_S)
            await self.start()
        while not self._stopping:
            job = self._table.next()
            if job is None:
                self._arrived.clear()
                await self._arrived.wait()
                continue
            # At once: from here on who cancels it must interrupt it.
            self._running = running = Running(job, self._clock)
            self._task = asyncio.create_task(self._run_one(running), name=f"job {job.id}")
            await asyncio.wait([self._task])

    async def stop(self) -> None:
        """Takes no more jobs; the one under way stops between documents, to go on later."""
        self._stopping = True
        self._arrived.set()
        if self._running is not None:
            self._running.interrupt("draining")
        if self._task is not None:
            await asyncio.wait([self._task])

    async def aclose(self) -> None:
        """Stops, and lets go of the folder."""
        await self.stop()
        if self._journal is not None:
            self._journal.close()

    def check(self) -> None:
        """Raises ServiceError JOBS_ELSEWHERE while this gateway runs no jobs."""
        if self._refusal is not None:
            raise ServiceError(Reason.JOBS_ELSEWHERE, self._refusal, RETRY_AFTER_S)

    async def submit(self, new: NewJob, documents: Documents | Sequence[NewDocument] = ()) -> Job:
        """Takes a job; it is durable once this returns.

        Raises ServiceError QUEUE_FULL, DRAINING, or REINDEX_RUNNING where the collection is
        to be rebuilt already.
        """
        self.check()
        if self._stopping:
            raise draining()
        job = Job(
            id=uuid.uuid4().hex,
            number=self._table.reserve(new),
            kind=new.kind,
            collection=new.collection,
            chunking=new.chunking,
            total=len(documents),
            created_at=self._clock.now(),
        )
        try:
            # To the end, whatever becomes of the caller: a job on the disk must be known here.
            return await asyncio.shield(self._take(job, documents))
        except OSError as error:
            log.error("a job cannot be kept", exc_info=error)
            raise ServiceError(
                Reason.QUEUE_FULL,
                f"The job cannot be kept at the moment ({error.strerror}).",
                RETRY_AFTER_S,
            ) from error

    def newest(self) -> list[Job]:
        """All jobs, newest first."""
        self.check()
        return [self._as_it_is(job) for job in self._table.newest()]

    def get(self, job_id: str) -> Job:
        """A job. Raises ServiceError JOB_NOT_FOUND."""
        self.check()
        return self._as_it_is(self._table.get(job_id))

    async def outcomes(self, job: Job) -> list[DocumentOutcome]:
        """What became of the documents of an index job so far."""
        assert self._journal is not None  # noqa: S101 - a job was found in it
        return await asyncio.to_thread(self._journal.outcomes, job.id)

    async def cancel(self, job_id: str, deadline: Deadline) -> Job:
        """Ends a job: a waiting one at once, a running one between documents.

        One that takes longer than 5 s to stop is given back as it is, and stops. Raises
        ServiceError JOB_NOT_FOUND, or JOB_ENDED when it has succeeded or failed.
        """
        job = self.get(job_id)
        running = self._running
        if running is not None and running.job.id == job_id:
            running.interrupt("cancelled")
            wait_s = deadline.share_s(CANCEL_WAIT_S)
            with suppress(TimeoutError):
                await asyncio.wait_for(running.over.wait(), wait_s)
            job = self.get(job_id)
        elif job.state == "queued":
            job = self._table.put(replace(job, state="cancelled", finished_at=self._clock.now()))
            await asyncio.shield(self._finish(job))
        if job.state in ("succeeded", "failed"):
            raise ServiceError(
                Reason.JOB_ENDED, f"The job has {job.state} already; nothing was cancelled."
            )
        return job

    def _refuse(self, why: str) -> None:
        if why != self._refusal:  # said once, not at every try
            log.warning(why)
        self._refusal = why

    async def _take(self, job: Job, documents: Documents | Sequence[NewDocument]) -> Job:
        assert self._journal is not None  # noqa: S101 - checked
        try:
            job = self._table.put(await asyncio.to_thread(self._journal.create, job, documents))
        finally:
            self._table.release(job.number)
        self._arrived.set()
        return job

    async def _run_one(self, running: Running) -> None:
        watching = Watching(self._clock, self._limits.stall_s, self._save)
        try:
            job = await run_job(running, self._works[running.job.kind], watching)
            if job.ended:
                await self._finish(job)
            else:
                await self._save(job)
        finally:
            running.over.set()
            self._running = None

    async def _finish(self, job: Job) -> None:
        """Keeps how the job ended, then tells of it, and forgets those that ended long ago."""
        assert self._journal is not None  # noqa: S101 - it holds the job
        await self._on_disk(job, self._journal.finish, job)
        self._table.put(job)
        self._metrics.job_ended(job.kind, job.state, _duration_s(job))
        for old in self._table.forget():
            await self._on_disk(old, self._journal.remove, old.id)

    async def _save(self, job: Job) -> None:
        self._table.put(job)
        assert self._journal is not None  # noqa: S101 - it holds the job
        await self._on_disk(job, self._journal.save, job)

    async def _on_disk(self, job: Job, write: Callable[[T], None], what: T) -> None:
        """A disk that refuses must not end the runner; what is true is in memory meanwhile.

        After a restart the job is run again, which changes nothing that it has done.
        """
        writing = asyncio.ensure_future(asyncio.to_thread(write, what))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])  # what is written next must come after it
            raise
        except Exception as error:
            log.error("a job's state cannot be kept", exc_info=error, extra={"job": job.id})

    def _as_it_is(self, job: Job) -> Job:
        """The job with its progress of this moment."""
        running = self._running
        if running is None or running.job.id != job.id or job.state != "running":
            return job
        return replace(job, done=running.progress.done, total=running.progress.total)

    def _idle_s(self) -> float:
        return 0.0 if self._running is None else self._running.progress.idle_s()


def _after_restart(job: Job) -> Job:
    """What was running when the gateway ended without a word is to be run again."""
    if job.state != "running":
        return job
    return replace(job, state="queued", kills=job.kills + 1)


def _duration_s(job: Job) -> float | None:
    """From the first start to the end; None for a job that never ran."""
    if job.started_at is None or job.finished_at is None:
        return None
    ended, started = (datetime.fromisoformat(at) for at in (job.finished_at, job.started_at))
    return max(0.0, (ended - started).total_seconds())
