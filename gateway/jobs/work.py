"""What the kinds of jobs do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from gateway.indexing import IndexOutcome, NewDocument
from gateway.jobs.job import DocumentOutcome, Job, JobError, JobReason
from gateway.jobs.journal import Journal
from gateway.jobs.progress import Progress
from gateway.search.types import Chunking
from runtime.deadline import Deadline
from runtime.errors import INTERNAL_MESSAGE, Reason, ServiceError

log = logging.getLogger(__name__)

# Documents handed to the indexer at once: its calls to the embedder are full, and what a crash
# has indexed again is little. 1,000,000 characters are 2,000 chunks, 10 s of a 2-core CPU.
GROUP_DOCUMENTS: Final = 256
GROUP_CHARACTERS: Final = 1_000_000
# One attempt at a group; whether it gets on meanwhile is watched by the runner.
ATTEMPT_S: Final = 3600.0


class Work(Protocol):
    """One kind of job."""

    async def run(self, job: Job, progress: Progress) -> JobError | None:
        """Does the job, or what is left of it. An error: it is done as far as it goes.

        Cancelled, it stops between documents, and a later call goes on from there.
        Raises what the job as a whole fails for.
        """

    async def abandon(self, job: Job) -> bool:
        """Cleans up behind a job that failed or was cancelled.

        True: it is too late, what the job had to do has taken effect.
        """


class DocumentIndexer(Protocol):
    """The part of `indexing.Indexer` that is needed here."""

    async def index(
        self,
        collection: str,
        documents: Sequence[NewDocument],
        chunking: Chunking | None,
        deadline: Deadline,
        born_at: int | None = None,
    ) -> IndexOutcome:
        """Every document durable, or an error."""


class CollectionRebuilder(Protocol):
    """The part of `reindexing.Reindexer` that is needed here."""

    async def run(
        self,
        collection: str,
        chunking: Chunking | None,
        job_id: str,
        progress: Callable[[int, int], None],
    ) -> None:
        """Rebuilds the collection, or goes on with it, and switches."""

    async def abandon(self, collection: str, job_id: str) -> bool:
        """Removes what the job has built; True where that is live already, and stays."""


class IndexWork:
    """Indexes the spooled documents, in their order. A bad document fails alone."""

    def __init__(self, indexer: DocumentIndexer, journal: Journal) -> None:
        self._indexer = indexer
        self._journal = journal

    async def run(self, job: Job, progress: Progress) -> JobError | None:
        """Indexes what no outcome is kept of; each outcome is kept as soon as it is there.

        The first of them may make the collection. If that is deleted later, the job fails,
        for it could not succeed with what it has indexed before.
        """
        done = job.done
        born_at = _born_at(await asyncio.to_thread(self._journal.outcomes, job.id))
        with self._journal.documents(job.id, done) as spool:
            while group := await asyncio.to_thread(spool.take, GROUP_DOCUMENTS, GROUP_CHARACTERS):
                outcomes = await self._index(job, group, progress, born_at)
                born_at = _born_at(outcomes) if born_at is None else born_at
                await self._keep(job, outcomes, progress)
                done += len(outcomes)
                progress.report(done, job.total)
        kept = await asyncio.to_thread(self._journal.outcomes, job.id)
        failed = [one for one in kept if one.status == "failed"]
        if not failed:
            return None
        return JobError(
            JobReason.DOCUMENTS_FAILED,
            f"{len(failed)} of {len(kept)} documents could not be indexed, the first being "
            f"{failed[0].id!r}; the others are.",
        )

    async def _keep(
        self, job: Job, outcomes: Sequence[DocumentOutcome], progress: Progress
    ) -> None:
        """Keeps outcomes; a disk that is full is waited for like a worker that is away."""

        async def attempt() -> None:
            try:
                await asyncio.to_thread(self._journal.append, job.id, outcomes)
            except OSError as error:
                message = f"The results cannot be kept ({error.strerror})."
                raise ServiceError(Reason.UNAVAILABLE, message) from error

        await progress.patiently(attempt)

    async def abandon(self, job: Job) -> bool:
        """What is indexed stays, as after a time-out of /index."""
        return False

    async def _index(
        self, job: Job, group: Sequence[NewDocument], progress: Progress, born_at: int | None
    ) -> list[DocumentOutcome]:
        """What became of each document; a group that fails is tried one by one."""

        async def attempt() -> IndexOutcome:
            deadline = Deadline.after(ATTEMPT_S)
            return await self._indexer.index(job.collection, group, job.chunking, deadline, born_at)

        try:
            outcome = await progress.patiently(attempt)
        except Exception as error:
            if _of_the_whole_job(error):
                raise
            if len(group) == 1:
                return [_failed(group[0], error)]
        else:
            return [
                DocumentOutcome(
                    id=one.id,
                    status=one.status,
                    chunks=one.chunks,
                    truncated_chunks=one.truncated_chunks,
                    born_at=outcome.born_at,
                )
                for one in outcome.results
            ]
        outcomes: list[DocumentOutcome] = []
        for document in group:
            outcomes += await self._index(job, [document], progress, born_at)
            born_at = _born_at(outcomes) if born_at is None else born_at
            progress.alive()
        return outcomes


class ReindexWork:
    """Rebuilds a collection beside the live one, and switches."""

    def __init__(self, rebuilder: CollectionRebuilder) -> None:
        self._rebuilder = rebuilder

    async def run(self, job: Job, progress: Progress) -> JobError | None:
        """Rebuilds, or goes on with what this job has begun."""

        async def attempt() -> None:
            await self._rebuilder.run(job.collection, job.chunking, job.id, progress.report)

        await progress.patiently(attempt)
        return None

    async def abandon(self, job: Job) -> bool:
        """Nothing of the rebuild is left; the live one is as it was, or the new one."""
        return await self._rebuilder.abandon(job.collection, job.id)


def _born_at(outcomes: Sequence[DocumentOutcome]) -> int | None:
    """Of the collection that has what is indexed; None while nothing is."""
    return next((one.born_at for one in outcomes if one.born_at is not None), None)


def _of_the_whole_job(error: Exception) -> bool:
    """Whether the next document would fail for it as well."""
    return isinstance(error, ServiceError) and (
        error.reason in (Reason.COLLECTION_NOT_FOUND, Reason.MODEL_MISMATCH)
        or error.metadata.get("field") == "collection"
    )


def job_error(error: BaseException) -> JobError:
    """What people are told of an error that ended a job."""
    if isinstance(error, ServiceError):
        return JobError(error.reason, error.message)
    return JobError(Reason.INTERNAL, INTERNAL_MESSAGE)


def _failed(document: NewDocument, error: Exception) -> DocumentOutcome:
    if not isinstance(error, ServiceError):
        log.error("a document could not be indexed", exc_info=error)
    return DocumentOutcome(id=document.id, status="failed", error=job_error(error))
