"""The jobs that are known: which is next, which are forgotten, and whether one more fits in."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.jobs.job import Job, Kind
from gateway.search.types import Chunking
from runtime.errors import Reason, ServiceError

# A queue moves about this fast.
RETRY_AFTER_S = 30.0


@dataclass(frozen=True, slots=True)
class JobLimits:
    """queued: waiting jobs; kept: ended ones; spool_bytes: documents of unended ones together;
    stall_s: a job that gets no further for this long fails.
    """

    queued: int
    kept: int
    spool_bytes: int
    stall_s: float


@dataclass(frozen=True, slots=True)
class NewJob:
    """What is asked for. spool_bytes: about what its documents take on the disk."""

    kind: Kind
    collection: str
    chunking: Chunking | None
    spool_bytes: int = 0


class JobTable:
    """Jobs by their ids, in memory."""

    def __init__(self, limits: JobLimits) -> None:
        self._limits = limits
        self._jobs: dict[str, Job] = {}
        self._next_number = 1
        # Being written to the disk: not yet known, and already counted.
        self._coming: dict[int, NewJob] = {}

    def put(self, job: Job) -> Job:
        """Makes the job known, or its state."""
        self._jobs[job.id] = job
        self._next_number = max(self._next_number, job.number + 1)
        return job

    def get(self, job_id: str) -> Job:
        """A job. Raises ServiceError JOB_NOT_FOUND."""
        if (job := self._jobs.get(job_id)) is None:
            raise ServiceError(Reason.JOB_NOT_FOUND, f"There is no job {job_id[:64]!r}.")
        return job

    def newest(self) -> list[Job]:
        """All jobs, newest first."""
        return sorted(self._jobs.values(), key=lambda job: job.number, reverse=True)

    def next(self) -> Job | None:
        """The job that has waited longest."""
        waiting = [job for job in self._jobs.values() if job.state == "queued"]
        return min(waiting, key=lambda job: job.number, default=None)

    def count(self, state: str) -> int:
        """How many are in a state."""
        return sum(job.state == state for job in self._jobs.values())

    def unended(self) -> list[Job]:
        """Those that wait or run."""
        return [job for job in self._jobs.values() if not job.ended]

    def forget(self) -> list[Job]:
        """Drops the oldest of the ended jobs above the limit, and says which."""
        ended = [job for job in self.newest() if job.ended]
        return [self._jobs.pop(job.id) for job in ended[self._limits.kept :]]

    def reserve(self, new: NewJob) -> int:
        """A place and a number for one more job; `release` follows once it is known.

        Raises ServiceError QUEUE_FULL, or REINDEX_RUNNING where the collection is to be
        rebuilt already.
        """
        if self.count("queued") + len(self._coming) >= self._limits.queued:
            message = f"{self._limits.queued} jobs wait already, as many as may (JOBS_QUEUED)."
            raise ServiceError(Reason.QUEUE_FULL, message, RETRY_AFTER_S)
        spooled = sum(job.spooled_bytes for job in self.unended())
        spooled += sum(one.spool_bytes for one in self._coming.values())
        # One too large for the limit is taken when it is alone.
        if spooled and spooled + new.spool_bytes > self._limits.spool_bytes:
            message = (
                f"The documents of jobs take {spooled} bytes, and {new.spool_bytes} more would "
                f"pass {self._limits.spool_bytes} (JOBS_SPOOL_BYTES)."
            )
            raise ServiceError(Reason.QUEUE_FULL, message, RETRY_AFTER_S)
        if new.kind == "reindex":
            self._check_alone(new)
        number, self._next_number = self._next_number, self._next_number + 1
        self._coming[number] = new
        return number

    def release(self, number: int) -> None:
        """The job of that number is known, or will never be."""
        del self._coming[number]

    def _check_alone(self, new: NewJob) -> None:
        others: list[Job | NewJob] = [*self.unended(), *self._coming.values()]
        if any((one.kind, one.collection) == (new.kind, new.collection) for one in others):
            raise ServiceError(
                Reason.REINDEX_RUNNING,
                f"A job rebuilds the collection '{new.collection}' already.",
                collection=new.collection,
            )
