"""What jobs do: every document is accounted for, and what is away is waited for."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.jobs import FakeTime, a_job, some_documents

from gateway.indexing import DocumentResult, IndexOutcome, NewDocument
from gateway.jobs.job import Job
from gateway.jobs.journal import Journal
from gateway.jobs.progress import Progress
from gateway.jobs.work import GROUP_DOCUMENTS, IndexWork, ReindexWork
from gateway.search.types import Chunking
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError

AWAY = ServiceError(Reason.EMBEDDER_UNAVAILABLE, "The embedder cannot be reached.")


class FakeIndexer:
    """calls: the ids of each; bad: ids that fail; errors: raised first, one a call.

    order: of positions, in which documents become durable; last: after it nothing more does.
    """

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.born_at: list[int | None] = []
        self.chunkings: set[Chunking | None] = set()
        self.bad: dict[str, Exception] = {}
        self.errors: list[Exception] = []
        self.order: list[int] = []
        self.last: str | None = None
        self.reached = asyncio.Event()

    async def index(
        self,
        collection: str,
        documents: Sequence[NewDocument],
        chunking: Chunking | None,
        deadline: Deadline,
        *,
        born_at: int | None = None,
        settled: Callable[[DocumentResult, int], None] = lambda result, born_at: None,
    ) -> IndexOutcome:
        self.born_at.append(born_at)
        self.calls.append([one.id for one in documents])
        self.chunkings.add(chunking)
        if self.errors:
            raise self.errors.pop(0)
        for one in documents:
            if one.id in self.bad:
                raise self.bad[one.id]
        results = [DocumentResult(one.id, "added", 2, 1) for one in documents]
        for one in (results[at] for at in self.order or range(len(results))):
            settled(one, 7)
            if one.id == self.last:
                self.reached.set()
                await asyncio.Event().wait()
        return IndexOutcome(results, 7)


class Bench:
    """An index job of so many documents, and what does it."""

    def __init__(self, folder: Path, count: int) -> None:
        self.journal = Journal(folder)
        self.job: Job = self.journal.create(a_job(total=count), some_documents(count))
        self.indexer = FakeIndexer()
        self.time = FakeTime()
        self.time.flows.set()
        self.work = IndexWork(self.indexer, self.journal)
        self.progress = Progress(self.time.clock, 0, count)

    async def run(self) -> Any:
        (job,) = self.journal.load()
        return await self.work.run(job, self.progress)

    def statuses(self) -> list[str]:
        return [one.status for one in self.journal.outcomes("a")]


async def test_documents_are_indexed_in_groups_in_their_order(tmp_path: Path) -> None:
    count = GROUP_DOCUMENTS + 5
    bench = Bench(tmp_path, count)
    assert await bench.run() is None
    assert [len(call) for call in bench.indexer.calls] == [GROUP_DOCUMENTS, 5]
    outcomes = bench.journal.outcomes("a")
    assert [one.id for one in outcomes] == [f"d{at}" for at in range(count)]
    assert {(one.status, one.chunks, one.truncated_chunks) for one in outcomes} == {("added", 2, 1)}
    assert (bench.progress.done, bench.progress.total) == (count, count)


async def test_every_document_is_told_of_as_soon_as_it_is_durable(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 5)
    bench.indexer.order, bench.indexer.last = [1, 0, 3, 2, 4], "d3"
    running = asyncio.create_task(bench.run())
    await bench.indexer.reached.wait()
    assert (bench.progress.done, bench.progress.total) == (3, 5)
    async with asyncio.timeout(5):
        while len(bench.statuses()) < 2:  # kept in their order, as far as there is no gap
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    assert [one.id for one in bench.journal.outcomes("a")] == ["d0", "d1"]
    bench.indexer.calls.clear()
    bench.indexer.order.clear()
    bench.indexer.last = None
    assert await bench.run() is None  # as after a restart
    assert bench.indexer.calls == [["d2", "d3", "d4"]]
    assert bench.statuses() == ["added"] * 5


async def test_only_what_is_indexed_first_may_make_the_collection(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 2 * GROUP_DOCUMENTS + 1)
    bench.indexer.bad = {
        "d0": ServiceError(Reason.MODEL_FAILED, "no"),
        f"d{GROUP_DOCUMENTS}": ServiceError(Reason.COLLECTION_NOT_FOUND, "deleted"),
    }
    with pytest.raises(ServiceError, match="deleted"):
        await bench.run()
    # The first group, its documents one by one, and the second group.
    assert bench.indexer.born_at == [None] * 3 + [7] * (GROUP_DOCUMENTS - 2) + [7]
    bench.indexer.born_at.clear()
    bench.indexer.bad.clear()
    await bench.run()  # as after a restart
    assert bench.indexer.born_at == [7, 7]


async def test_what_has_an_outcome_is_not_indexed_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 4)
    bench.indexer.bad = {"d2": ServiceError(Reason.MODEL_MISMATCH, "another model")}
    with pytest.raises(ServiceError):
        await bench.run()
    bench.indexer.bad = {}
    assert await bench.run() is None
    bench.indexer.calls.clear()
    assert await bench.run() is None
    assert bench.indexer.calls == []
    assert bench.statuses() == ["added"] * 4


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ServiceError(Reason.INVALID_ARGUMENT, "too many chunks"), "INVALID_ARGUMENT"),
        (ServiceError(Reason.MODEL_FAILED, "the model failed"), "MODEL_FAILED"),
        (ValueError("secret"), "INTERNAL"),
    ],
)
async def test_a_bad_document_fails_alone(tmp_path: Path, error: Exception, reason: str) -> None:
    bench = Bench(tmp_path, 4)
    bench.indexer.bad = {"d1": error}
    failed = await bench.run()
    assert bench.statuses() == ["added", "failed", "added", "added"]
    (outcome,) = [one for one in bench.journal.outcomes("a") if one.error is not None]
    assert (outcome.error.reason, "secret" in outcome.error.detail) == (reason, False)  # type: ignore[union-attr]
    assert failed.reason == "DOCUMENTS_FAILED"
    assert "1 of 4 documents" in failed.detail
    assert "'d1'" in failed.detail


@pytest.mark.parametrize(
    "error",
    [
        ServiceError(Reason.COLLECTION_NOT_FOUND, "gone"),
        ServiceError(Reason.MODEL_MISMATCH, "another model"),
        ServiceError(Reason.INVALID_ARGUMENT, "too many collections", field="collection"),
    ],
)
async def test_what_fails_every_document_fails_the_job(tmp_path: Path, error: ServiceError) -> None:
    bench = Bench(tmp_path, 3)
    bench.indexer.errors = [error]
    with pytest.raises(ServiceError, match=error.message):
        await bench.run()
    assert len(bench.indexer.calls) == 1
    assert bench.statuses() == []


async def test_what_is_away_is_asked_again_ever_more_seldom(tmp_path: Path) -> None:
    bench = Bench(tmp_path, 2)
    later = ServiceError(Reason.QUEUE_FULL, "full", 100.0)
    bench.indexer.errors = [AWAY, AWAY, AWAY, later]
    before_s = bench.time.now_s
    assert await bench.run() is None
    assert bench.time.now_s - before_s == 1 + 2 + 4 + 100
    assert bench.indexer.calls == [["d0", "d1"]] * 5
    assert bench.progress.fault is None


async def test_work_that_is_redone_after_a_fault_does_not_count() -> None:
    time = FakeTime()
    time.flows.set()
    pulse_s = 0.0
    progress = Progress(replace(time.clock, pulse_s=lambda: pulse_s), 0, 0)
    idle_s: list[float] = []

    async def attempt() -> None:
        """Goes through three documents, embeds for 100 s, and cannot write."""
        nonlocal pulse_s
        for done in range(4):
            progress.report(done, 5)
        time.now_s += 100
        pulse_s = time.now_s
        idle_s.append(progress.idle_s())
        if len(idle_s) == 6:
            progress.report(4, 5)
            return
        raise ServiceError(Reason.VECTOR_DB_UNAVAILABLE, "No space left on device.")

    await progress.patiently(attempt)
    # From the first fault on, with the pauses between.
    assert idle_s == [0, 101, 203, 307, 415, 531]
    assert (progress.fault, progress.idle_s()) == (None, 0)
    time.now_s += 50
    assert progress.idle_s() == 50
    progress.report(4, 5)  # goes through what is done
    assert progress.idle_s() == 0


async def test_a_full_disk_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, 2)
    append: Callable[..., None] = bench.journal.append
    refusals = [OSError(errno.ENOSPC, "No space left on device")] * 2

    def full(*arguments: Any) -> None:
        if refusals:
            raise refusals.pop()
        append(*arguments)

    monkeypatch.setattr(bench.journal, "append", full)
    assert await bench.run() is None
    assert bench.statuses() == ["added", "added"]


async def test_a_rebuild_is_tried_again_and_given_up_by_its_id() -> None:
    class Rebuilder:
        def __init__(self) -> None:
            self.calls: list[Any] = []

        async def run(
            self,
            collection: str,
            chunking: Chunking | None,
            job_id: str,
            progress: Callable[[int, int], None],
        ) -> None:
            self.calls.append((collection, chunking, job_id))
            progress(1, 3)
            if len(self.calls) == 1:
                raise AWAY

        async def abandon(self, collection: str, job_id: str) -> bool:
            self.calls.append((collection, job_id))
            return True

    rebuilder, time = Rebuilder(), FakeTime()
    time.flows.set()
    work, progress = ReindexWork(rebuilder), Progress(time.clock, 0, 0)
    assert await work.run(a_job(kind="reindex"), progress) is None
    assert (progress.done, progress.total) == (1, 3)
    assert await work.abandon(a_job(kind="reindex"))
    assert rebuilder.calls == [("documents", None, "a")] * 2 + [("documents", "a")]
