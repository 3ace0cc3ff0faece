"""The runner: one job at a time, whatever becomes of the gateway, the disk and the caller."""

from __future__ import annotations

import asyncio
import errno
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from support.jobs import INDEX, LIMITS, REINDEX, Jobs, a_job, running, some_documents

from gateway.jobs.job import DocumentOutcome, Job, JobError
from gateway.jobs.journal import Journal
from gateway.jobs.runner import JobRunner
from gateway.jobs.table import NewJob
from gateway.metrics import GatewayMetrics
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError


def soon() -> Deadline:
    return Deadline.after(20)


async def refused(doing: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await doing
    return caught.value


async def test_jobs_run_one_at_a_time_in_their_order(tmp_path: Path) -> None:
    async with running(Jobs(tmp_path)) as jobs:
        first = await jobs.runner.submit(INDEX, some_documents(2))
        await jobs.work.started.wait()
        second = await jobs.runner.submit(INDEX, some_documents(1))
        third = await jobs.runner.submit(REINDEX)
        assert [job.id for job in jobs.runner.newest()] == [third.id, second.id, first.id]
        states = [jobs.runner.get(job.id).state for job in (first, second, third)]
        assert states == ["running", "queued", "queued"]
        jobs.work.gate.set()
        ended = await jobs.ended(third.id)
        assert [job.id for job in jobs.work.ran] == [first.id, second.id, third.id]
    assert (ended.state, ended.done, ended.total) == ("succeeded", 1, 2)
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert jobs.work.abandoned == []


async def test_a_full_queue_and_a_full_disk_refuse(tmp_path: Path) -> None:
    async with running(Jobs(tmp_path)) as jobs:
        large = NewJob("index", "documents", None, LIMITS.spool_bytes + 1)
        await jobs.runner.submit(large, some_documents(1))  # alone, any size is taken
        await jobs.work.started.wait()
        error = await refused(jobs.runner.submit(large, some_documents(1)))
        assert (error.reason, error.retry_after_s) == (Reason.QUEUE_FULL, 30.0)
        for _ in range(LIMITS.queued):
            await jobs.runner.submit(INDEX, some_documents(1))
        error = await refused(jobs.runner.submit(INDEX, some_documents(1)))
        assert error.reason == Reason.QUEUE_FULL
        assert "3 jobs wait" in error.message
        assert len(jobs.journal.load()) == LIMITS.queued + 1


async def test_a_collection_is_rebuilt_by_one_job(tmp_path: Path) -> None:
    async with running(Jobs(tmp_path)) as jobs:
        await jobs.runner.submit(REINDEX)
        error = await refused(jobs.runner.submit(REINDEX))
        assert error.reason == Reason.REINDEX_RUNNING
        await jobs.runner.submit(NewJob("reindex", "other", None))


async def test_a_waiting_job_is_cancelled_at_once(tmp_path: Path) -> None:
    async with running(Jobs(tmp_path)) as jobs:
        first = await jobs.runner.submit(INDEX, some_documents(1))
        second = await jobs.runner.submit(INDEX, some_documents(1))
        await jobs.work.started.wait()
        cancelled = await jobs.runner.cancel(second.id, soon())
        assert cancelled.state == "cancelled"
        assert (await jobs.runner.cancel(second.id, soon())).state == "cancelled"
        jobs.work.gate.set()
        await jobs.ended(first.id)
        assert [job.id for job in jobs.work.ran] == [first.id]
        states = {job.id: job.state for job in jobs.journal.load()}
    assert states == {first.id: "succeeded", second.id: "cancelled"}


async def test_a_running_job_is_cancelled_and_cleaned_up_after(tmp_path: Path) -> None:
    async with running(Jobs(tmp_path)) as jobs:
        job = await jobs.runner.submit(REINDEX)
        await jobs.work.started.wait()
        assert (await jobs.runner.cancel(job.id, soon())).state == "cancelled"
        assert jobs.work.abandoned == [job.id]
        assert jobs.journal.load()[0].state == "cancelled"


async def test_what_has_ended_cannot_be_cancelled(tmp_path: Path) -> None:
    async with running(Jobs(tmp_path)) as jobs:
        jobs.work.gate.set()
        job = await jobs.runner.submit(REINDEX)
        await jobs.ended(job.id)
        assert (await refused(jobs.runner.cancel(job.id, soon()))).reason == Reason.JOB_ENDED
        error = await refused(jobs.runner.cancel("nonsense", soon()))
        assert error.reason == Reason.JOB_NOT_FOUND


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (ServiceError(Reason.MODEL_MISMATCH, "no"), "MODEL_MISMATCH"),
        (ValueError("secret"), "INTERNAL"),
        (JobError("DOCUMENTS_FAILED", "one"), "DOCUMENTS_FAILED"),
    ],
)
async def test_a_job_that_fails_says_why(tmp_path: Path, what: Any, reason: str) -> None:
    def play(*_: Any) -> JobError | None:
        if isinstance(what, JobError):
            return what
        raise what

    async with running(Jobs(tmp_path)) as jobs:
        jobs.work.what = play
        jobs.work.gate.set()
        job = await jobs.runner.submit(INDEX, some_documents(1))
        ended = await jobs.ended(job.id)
        assert ended.state == "failed"
        assert ended.error is not None
        assert ended.error.reason == reason
        assert "secret" not in ended.error.detail
        assert jobs.work.abandoned == [job.id]
        assert jobs.journal.load() == [ended]


async def test_an_end_is_told_of_once_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, entered, go_on = Journal.finish, threading.Event(), threading.Event()

    def slow(journal: Journal, job: Job) -> None:
        entered.set()
        assert go_on.wait(20)
        finish(journal, job)

    monkeypatch.setattr(Journal, "finish", slow)
    async with running(Jobs(tmp_path)) as jobs:
        jobs.work.gate.set()
        job = await jobs.runner.submit(INDEX, some_documents(2))
        assert await asyncio.to_thread(entered.wait, 20)
        known = jobs.runner.get(job.id)
        # Its progress is of this moment all the same.
        assert (known.state, known.done) == ("running", 1)
        go_on.set()
        assert (await jobs.ended(job.id)).state == "succeeded"


async def test_ended_jobs_are_forgotten_oldest_first(tmp_path: Path) -> None:
    async with running(Jobs(tmp_path)) as jobs:
        jobs.work.gate.set()
        ids = []
        for _ in range(4):
            ids.append((await jobs.runner.submit(INDEX, some_documents(1))).id)
            await jobs.ended(ids[-1])
        assert [job.id for job in jobs.runner.newest()] == ids[:1:-1]
        assert [job.id for job in jobs.journal.load()] == ids[2:]
        with pytest.raises(ServiceError):
            jobs.runner.get(ids[0])


async def test_a_stop_leaves_the_job_to_the_next_start(tmp_path: Path) -> None:
    async with running(Jobs(tmp_path)) as jobs:
        job = await jobs.runner.submit(REINDEX)
        waiting = await jobs.runner.submit(INDEX, some_documents(1))
        await jobs.work.started.wait()
        await jobs.runner.stop()
        error = await refused(jobs.runner.submit(INDEX, some_documents(1)))
        assert error.reason == Reason.DRAINING
    assert jobs.work.abandoned == []
    async with running(Jobs(tmp_path)) as after:
        after.work.gate.set()
        assert (await after.ended(waiting.id)).state == "succeeded"
        assert [one.id for one in after.work.ran] == [job.id, waiting.id]
        assert after.work.ran[0].kills == 0
        # Numbers go on from where they were.
        assert (await after.runner.submit(INDEX, some_documents(1))).number == 3


async def killed(folder: Path, to: Path) -> None:
    """What the disk holds when the gateway is killed while it runs the job there."""
    jobs = Jobs(folder)
    async with running(jobs):
        await jobs.work.started.wait()
        shutil.copytree(folder, to)


async def test_a_job_that_kills_the_gateway_fails_in_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "0"
    journal = Journal(folder)
    folder.mkdir()
    journal.create(a_job(kind="reindex"), [])
    for death in range(3):
        await killed(folder, folder := tmp_path / str(death + 1))
    async with running(Jobs(folder)) as jobs:
        ended = await jobs.ended("a")
        assert jobs.work.ran == []
        assert jobs.work.abandoned == ["a"]
    assert ended.state == "failed"
    assert ended.error == JobError(
        "GATEWAY_KILLED", "The gateway was killed 3 times in a row while the job ran."
    )


async def test_progress_between_deaths_lets_it_go_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.create(replace(a_job(total=2), state="running", kills=2), some_documents(2))
    journal.append("a", [DocumentOutcome(id="d0", status="added")])
    async with running(Jobs(tmp_path)) as jobs:
        await jobs.work.started.wait()
        assert (jobs.work.ran[0].done, jobs.work.ran[0].kills) == (1, 1)


async def test_progress_is_kept_and_takes_the_deaths_back(tmp_path: Path) -> None:
    Journal(tmp_path).create(replace(a_job(kind="reindex"), state="running", kills=1), [])
    async with running(Jobs(tmp_path)) as jobs:
        await jobs.work.started.wait()
        assert jobs.work.ran[0].kills == 2
        jobs.time.flows.set()
        async with asyncio.timeout(20):
            while (kept := jobs.journal.load()[0]).kills:
                await asyncio.sleep(0.001)
        assert (kept.state, kept.done, kept.total) == ("running", 1, 2)


async def test_a_cancelled_job_stays_cancelled_after_a_crash(tmp_path: Path) -> None:
    cancelling = replace(a_job(kind="reindex"), state="running", cancelling=True)
    Journal(tmp_path).create(cancelling, [])
    async with running(Jobs(tmp_path)) as jobs:
        assert (await jobs.ended("a")).state == "cancelled"
        assert jobs.work.ran == []
        assert jobs.work.abandoned == ["a"]


async def test_a_job_without_progress_fails(tmp_path: Path) -> None:
    async with running(Jobs(tmp_path)) as jobs:
        job = await jobs.runner.submit(REINDEX)
        await jobs.work.started.wait()
        jobs.time.flows.set()
        ended = await jobs.ended(job.id)
        assert jobs.work.abandoned == [job.id]
    assert ended.error == JobError("JOB_STALLED", "No progress for 600 s (JOB_STALL_SECONDS).")


@pytest.mark.parametrize("how", ["cancelled", "stalled", "failed", "killed", "crashed"])
async def test_a_job_that_has_taken_effect_has_succeeded(tmp_path: Path, how: str) -> None:
    def fail(*_: Any) -> JobError | None:
        raise ServiceError(Reason.UNAVAILABLE, "after the switch")

    crashed = replace(a_job(kind="reindex"), state="running")
    if how in ("killed", "crashed"):
        crashed = replace(crashed, kills=3 * (how == "killed"), cancelling=how == "crashed")
        Journal(tmp_path).create(crashed, [])
    jobs = Jobs(tmp_path)
    jobs.work.late = True
    jobs.work.away = [ServiceError(Reason.VECTOR_DB_UNAVAILABLE, "away for a moment")]
    async with running(jobs):
        if how in ("killed", "crashed"):
            jobs.time.flows.set()
            ended = await jobs.ended("a")
        else:
            job = await jobs.runner.submit(REINDEX)
            await jobs.work.started.wait()
            if how == "failed":
                jobs.work.what = fail
                jobs.work.gate.set()
            if how == "cancelled":
                jobs.work.away.clear()
                error = await refused(jobs.runner.cancel(job.id, soon()))
                assert (error.reason, "succeeded" in error.message) == (Reason.JOB_ENDED, True)
            jobs.time.flows.set()
            ended = await jobs.ended(job.id)
        assert (ended.state, ended.error) == ("succeeded", None)
        assert (await refused(jobs.runner.cancel(ended.id, soon()))).reason == Reason.JOB_ENDED
        assert jobs.journal.load() == [ended]


async def test_work_that_cannot_even_begin_ends_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("secret")

    async with running(Jobs(tmp_path)) as jobs:
        monkeypatch.setattr(jobs.work, "run", broken)
        job = await jobs.runner.submit(REINDEX)
        ended = await jobs.ended(job.id)
        assert (ended.state, ended.error and ended.error.reason) == ("failed", "INTERNAL")
        assert ended.finished_at is not None
        assert jobs.work.abandoned == [job.id]
        assert jobs.journal.load() == [ended]
        labels = {"kind": "reindex", "state": "failed"}
        assert jobs.registry.get_sample_value("rag_jobs_ended_total", labels) == 1


async def test_a_job_that_does_not_let_go_does_not_hold_up_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.jobs.running.LET_GO_S", 0.01)
    async with running(Jobs(tmp_path)) as jobs:
        jobs.work.holds_on = True
        job = await jobs.runner.submit(INDEX, some_documents(1))
        await jobs.work.started.wait()
        assert (await jobs.runner.cancel(job.id, soon())).state == "cancelled"
        jobs.work.gate.set()
        after = await jobs.runner.submit(INDEX, some_documents(1))
        assert (await jobs.ended(after.id)).state == "succeeded"


async def test_one_gateway_runs_the_jobs_and_another_takes_over(tmp_path: Path) -> None:
    async with running(Jobs(tmp_path)) as first:
        second = Jobs(tmp_path)
        async with running(second):
            for asking in (
                second.runner.submit(INDEX, some_documents(1)),
                second.runner.cancel("a", soon()),
            ):
                error = await refused(asking)
                assert error.reason == Reason.JOBS_ELSEWHERE
                assert "Another gateway" in error.message
            job = await first.runner.submit(REINDEX)
            await first.work.started.wait()
            await first.runner.aclose()
            second.time.flows.set()
            await second.taken()
            second.time.flows.clear()
            second.work.gate.set()
            assert (await second.ended(job.id)).state == "succeeded"


async def test_a_gateway_that_shall_run_none_refuses(tmp_path: Path) -> None:
    runner = JobRunner(None, {}, LIMITS, GatewayMetrics(CollectorRegistry()))
    await runner.start()
    await runner.run()
    with pytest.raises(ServiceError, match="JOBS=false") as caught:
        runner.newest()
    assert caught.value.reason == Reason.JOBS_ELSEWHERE
    await runner.aclose()


async def test_a_folder_that_cannot_be_written_refuses(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with running(Jobs(tmp_path / "file" / "jobs")) as jobs:
        error = await refused(jobs.runner.submit(INDEX, some_documents(1)))
        assert error.reason == Reason.JOBS_ELSEWHERE
        assert "DATA_DIR" in error.message
        assert str(tmp_path) not in error.message


async def test_jobs_that_cannot_be_read_now_are_read_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Journal(tmp_path).create(a_job(kind="reindex"), [])
    read_bytes = Path.read_bytes

    def refuse(path: Path) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    async with running(Jobs(tmp_path)) as jobs:
        error = await refused(jobs.runner.submit(REINDEX))
        assert error.reason == Reason.JOBS_ELSEWHERE
        assert "Too many open files" in error.message
        monkeypatch.setattr(Path, "read_bytes", read_bytes)
        jobs.time.flows.set()
        await jobs.taken()
        jobs.time.flows.clear()
        jobs.work.gate.set()
        assert (await jobs.ended("a")).state == "succeeded"


async def test_a_full_disk_refuses_jobs_and_keeps_running_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with running(Jobs(tmp_path)) as jobs:
        job = await jobs.runner.submit(INDEX, some_documents(1))
        await jobs.work.started.wait()
        for name in ("create", "save", "finish"):
            monkeypatch.setattr(jobs.journal, name, full)
        error = await refused(jobs.runner.submit(INDEX, some_documents(1)))
        assert (error.reason, "No space" in error.message) == (Reason.QUEUE_FULL, True)
        jobs.work.gate.set()
        assert (await jobs.ended(job.id)).state == "succeeded"


async def test_a_caller_who_leaves_does_not_lose_a_job_that_is_taken(tmp_path: Path) -> None:
    async with running(Jobs(tmp_path)) as jobs:
        asking = asyncio.create_task(jobs.runner.submit(INDEX, some_documents(1)))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        await jobs.work.started.wait()
        assert len(jobs.runner.newest()) == len(jobs.journal.load()) == 1


async def test_the_jobs_are_counted(tmp_path: Path) -> None:
    async with running(Jobs(tmp_path)) as jobs:

        def value(name: str, **labels: str) -> float:
            found = jobs.registry.get_sample_value(name, labels)
            assert found is not None, name
            return found

        assert value("rag_jobs", state="queued") == 0
        assert value("rag_jobs_ended_total", kind="reindex", state="failed") == 0
        assert value("rag_job_duration_seconds_count", kind="index") == 0
        job = await jobs.runner.submit(INDEX, some_documents(1))
        await jobs.work.started.wait()
        jobs.time.now_s += 7
        assert value("rag_jobs", state="running") == 1
        assert value("rag_job_idle_seconds") == 7
        jobs.work.gate.set()
        await jobs.ended(job.id)
        assert value("rag_jobs", state="succeeded") == 1
        assert value("rag_jobs_ended_total", kind="index", state="succeeded") == 1
        assert value("rag_job_duration_seconds_count", kind="index") == 1
        assert value("rag_job_idle_seconds") == 0
