"""What the kinds of jobs do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Protocol

from gateway.indexing import DocumentResult, IndexOutcome, NewDocument
from gateway.jobs.group import Group
from gateway.jobs.job import DocumentOutcome, Job, JobError, JobReason
from gateway.jobs.journal import Journal
from gateway.jobs.progress import Progress
from gateway.search.types import Chunking
from runtime.deadline import Deadline
from runtime.errors import INTERNAL_MESSAGE, Reason, ServiceError
from runtime.groups import task_group

log = logging.getLogger(__name__)

# Documents handed to the indexer at once, so that its calls to the embedder are full.
# 1,000,000 characters are 2,000 chunks, 20 s of a 2-core CPU.
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
        *,
        born_at: int | None = None,
        settled: Callable[[DocumentResult, int], None] = ...,
    ) -> IndexOutcome:
        """Every document durable, or an error; each one told of as soon as it is."""


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
            while taken := await asyncio.to_thread(spool.take, GROUP_DOCUMENTS, GROUP_CHARACTERS):
                group = Group(taken)
                async with task_group() as tasks:
                    tasks.create_task(self._keep_all(job, group, progress))
                    born_at = await self._index(job, group, progress, done, born_at)
                done += len(taken)
        kept = await asyncio.to_thread(self._journal.outcomes, job.id)
        failed = [one for one in kept if one.status == "failed"]
        if not failed:
            return None
        return JobError(
            JobReason.DOCUMENTS_FAILED,
            f"{len(failed)} of {len(kept)} documents could not be indexed, the first being "
            f"{failed[0].id!r}; the others are.",
        )

    async def _keep_all(self, job: Job, group: Group, progress: Progress) -> None:
        """Keeps the group's outcomes as they come."""
        complete = False
        while not complete:
            await group.arrival()
            outcomes = group.keepable()
            await self._keep(job, outcomes, progress)
            complete = group.keep(outcomes)

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
        self, job: Job, group: Group, progress: Progress, before: int, born_at: int | None
    ) -> int | None:
        """Settles every document; a group that fails is tried one by one.

        before: documents of earlier groups. Returns when the collection was born, None while
        nothing is in it.
        """

        def settle(outcome: DocumentOutcome) -> None:
            group.settle(outcome)
            progress.report(before + group.settled, job.total)

        def settled(result: DocumentResult, born: int) -> None:
            nonlocal born_at
            born_at = born
            settle(
                DocumentOutcome(
                    id=result.id,
                    status=result.status,
                    chunks=result.chunks,
                    truncated_chunks=result.truncated_chunks,
                    born_at=born,
                )
            )

        async def attempt(at_once: int) -> None:
            documents, deadline = group.unsettled()[:at_once], Deadline.after(ATTEMPT_S)
            await self._indexer.index(
                job.collection,
                documents,
                job.chunking,
                deadline,
                born_at=born_at,
                settled=settled,
            )

        at_once = len(group)
        while group.settled < len(group):
            try:
                await progress.patiently(partial(attempt, at_once))
            except Exception as error:
                left = group.unsettled()
                if _of_the_whole_job(error) or not left:
                    raise
                if at_once == 1 or len(left) == 1:
                    settle(_failed(left[0], error))
                at_once = 1
        return born_at


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
