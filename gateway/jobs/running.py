"""One job while it runs: watched, interrupted, and brought to an end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from msgspec.structs import replace

from gateway.jobs.job import Job, JobError, JobReason, State
from gateway.jobs.progress import Clock, Progress
from gateway.jobs.work import Work, job_error
from runtime.errors import ServiceError

log = logging.getLogger(__name__)

Interruption = Literal["cancelled", "stalled", "draining"]

# Deaths of the gateway in a row, with no progress in between, that fail a job.
MOST_KILLS: Final = 3
# How often the progress is kept, so that a later start can tell it from none.
KEEP_S: Final = 1.0
# What is cancelled gets this long to let go, and what it leaves behind to be removed.
LET_GO_S: Final = 30.0
CLEAN_UP_S: Final = 60.0


class Running:
    """The job that runs. over: set once its end is kept."""

    def __init__(self, job: Job, clock: Clock) -> None:
        self.job = job
        self.progress = Progress(clock, job.done, job.total)
        self.over = asyncio.Event()
        self.interrupted = asyncio.Event()
        self.why: Interruption | None = None

    def interrupt(self, why: Interruption) -> None:
        """Has the work stop; the first reason counts, but a cancelled job does not go on."""
        if self.why is None or (self.why == "draining" and why == "cancelled"):
            self.why = why
        self.interrupted.set()


@dataclass(frozen=True, slots=True)
class Watching:
    """stall_s: without progress for this long, the job fails; save: keeps a job's state."""

    clock: Clock
    stall_s: float
    save: Callable[[Job], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _End:
    """state: None goes on after a restart."""

    state: State | None
    error: JobError | None = field(default=None)


async def run_job(running: Running, work: Work, watching: Watching) -> Job:
    """The job as it ended; queued again, if the gateway stops."""
    try:
        end = _at_once(running.job) or await _work(running, work, watching)
    except Exception as error:  # it ends like any other, and the next gets its turn
        log.exception("a job failed", extra={"job": running.job.id})
        end = _End("failed", job_error(error))
    job = replace(running.job, done=running.progress.done, total=running.progress.total)
    if end.state is None:
        return replace(job, state="queued", kills=0)
    if end.state != "succeeded" and await _abandon(job, work, watching.clock):
        end = _End("succeeded")
    _tell(job, end)
    return replace(job, state=end.state, error=end.error, finished_at=watching.clock.now(), kills=0)


def _at_once(job: Job) -> _End | None:
    """How a job ends that is not to be run (again)."""
    if job.cancelling:
        return _End("cancelled")
    if job.kills >= MOST_KILLS:
        message = f"The gateway was killed {job.kills} times in a row while the job ran."
        return _End("failed", JobError(JobReason.GATEWAY_KILLED, message))
    return None


async def _work(running: Running, work: Work, watching: Watching) -> _End:
    started_at = running.job.started_at or watching.clock.now()
    running.job = replace(running.job, state="running", started_at=started_at)
    await watching.save(running.job)
    task = asyncio.create_task(work.run(running.job, running.progress), name="job work")
    interrupted = asyncio.create_task(running.interrupted.wait())
    watch = asyncio.create_task(_watch(running, watching))
    try:
        await asyncio.wait((task, interrupted), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            watch.cancel()
            if running.why == "cancelled":
                # A crash from now on must not let it go on.
                running.job = replace(running.job, cancelling=True)
                await watching.save(running.job)
            task.cancel()
            await asyncio.wait((task,), timeout=LET_GO_S)
    finally:
        for one in (task, interrupted, watch):
            one.cancel()
        await asyncio.wait((interrupted, watch))
    return _how_it_ended(task, running, watching.stall_s)


async def _watch(running: Running, watching: Watching) -> None:
    """Keeps the progress, and interrupts a job that makes none."""
    progress = running.progress
    while (left_s := watching.stall_s - progress.idle_s()) > 0:
        await watching.clock.sleep(min(left_s, KEEP_S))
        if (progress.done, progress.total) != (running.job.done, running.job.total):
            further = progress.done > running.job.done
            kills = 0 if further else running.job.kills
            done = max(progress.done, running.job.done)
            running.job = replace(running.job, done=done, total=progress.total, kills=kills)
            await watching.save(running.job)
    running.interrupt("stalled")


def _how_it_ended(task: asyncio.Task[JobError | None], running: Running, stall_s: float) -> _End:
    if not task.done():
        log.error("a job does not let go", extra={"job": running.job.id})
    elif not task.cancelled():
        error = task.exception()
        if error is None:
            missing = task.result()
            return _End("succeeded" if missing is None else "failed", missing)
        if not isinstance(error, ServiceError):
            log.error("a job failed", exc_info=error, extra={"job": running.job.id})
        return _End("failed", job_error(error))
    if running.why == "draining":
        return _End(None)
    if running.why == "cancelled":
        return _End("cancelled")
    return _End("failed", _standstill(running.progress.fault, stall_s))


def _standstill(fault: ServiceError | None, stall_s: float) -> JobError:
    if fault is None:
        message = f"No progress for {stall_s:g} s (JOB_STALL_SECONDS)."
        return JobError(JobReason.JOB_STALLED, message)
    return JobError(fault.reason, f"{fault.message} It was waited for {stall_s:g} s.")


async def _abandon(job: Job, work: Work, clock: Clock) -> bool:
    """Removes what the job leaves behind; what cannot be removed now, upkeep finds later.

    Whether it is too late, because what the job made is in force. A store that is away for a
    moment must not leave that open.
    """

    async def attempt() -> bool:
        return await work.abandon(job)

    try:
        async with asyncio.timeout(CLEAN_UP_S):
            return await Progress(clock, job.done, job.total).patiently(attempt)
    except Exception as error:
        cause = None if isinstance(error, ServiceError) else error
        log.warning(
            "What a job left behind stays for now: %s", error, exc_info=cause, extra={"job": job.id}
        )
        return False


def _tell(job: Job, end: _End) -> None:
    log.log(
        logging.WARNING if end.state == "failed" else logging.INFO,
        "The job has %s.",
        {"succeeded": "succeeded", "failed": "failed"}.get(str(end.state), "been cancelled"),
        extra={
            "job": job.id,
            "kind": job.kind,
            "collection": job.collection,
            "reason": None if end.error is None else end.error.reason,
        },
    )
