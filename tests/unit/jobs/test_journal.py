"""The journal: whatever breaks off wherever, a later start finds every job whole."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from support.jobs import a_job, some_documents

from gateway.indexing import NewDocument
from gateway.jobs.job import DocumentOutcome, Job, JobError
from gateway.jobs.journal import Journal

OUTCOMES = [
    DocumentOutcome(id="d0", status="added", chunks=3, truncated_chunks=1),
    DocumentOutcome(id="d1", status="failed", error=JobError("TEXT_TOO_LONG", "too long")),
    DocumentOutcome(id="d2", status="unchanged", chunks=1),
]


class Crash(BaseException):
    """The process dies here."""


Open = Callable[[Path], Journal]


@pytest.fixture
def opened() -> Iterator[Open]:
    journals: list[Journal] = []

    def open_(folder: Path) -> Journal:
        journals.append(Journal(folder))
        assert journals[-1].open()
        return journals[-1]

    yield open_
    for journal in journals:
        journal.close()


def read_all(journal: Journal, job_id: str, skip: int = 0) -> list[NewDocument]:
    with journal.documents(job_id, skip) as spool:
        return spool.take(1000, 1 << 30)


def test_a_job_is_found_as_it_was_kept(tmp_path: Path, opened: Open) -> None:
    journal = opened(tmp_path / "data" / "jobs")
    documents = some_documents(3)
    kept = journal.create(a_job(total=3), documents)
    assert kept.spooled_bytes > 0
    assert journal.load() == [kept]
    assert read_all(journal, "a") == documents
    assert read_all(journal, "a", skip=2) == documents[2:]
    journal.append("a", OUTCOMES[:2])
    journal.append("a", OUTCOMES[2:])
    assert journal.outcomes("a") == OUTCOMES
    assert journal.load() == [replace(kept, done=3)]


def test_jobs_come_in_the_order_of_their_numbers(tmp_path: Path, opened: Open) -> None:
    journal = opened(tmp_path)
    for number, name in ((11, "b"), (2, "c"), (10, "a")):
        journal.create(a_job(name, number, "reindex"), [])
    assert [job.number for job in journal.load()] == [2, 10, 11]


def test_documents_are_taken_in_groups(tmp_path: Path, opened: Open) -> None:
    journal = opened(tmp_path)
    journal.create(a_job(total=5), some_documents(5))
    with journal.documents("a", 0) as spool:
        assert [one.id for one in spool.take(2, 1000)] == ["d0", "d1"]
        # At least one, however large.
        assert [one.id for one in spool.take(2, 1)] == ["d2"]
        assert len(spool.take(10, 1000)) == 2
        assert spool.take(10, 1000) == []


def test_an_ended_job_keeps_its_outcomes_and_not_its_documents(
    tmp_path: Path, opened: Open
) -> None:
    journal = opened(tmp_path)
    job = journal.create(a_job(total=3), some_documents(3))
    journal.append("a", OUTCOMES)
    journal.finish(replace(job, state="failed", error=JobError("X", "y")))
    (found,) = journal.load()
    assert (found.state, found.error) == ("failed", JobError("X", "y"))
    assert journal.outcomes("a") == OUTCOMES
    assert not (tmp_path / "a" / "documents.jsonl").exists()
    journal.remove("a")
    assert journal.load() == []
    assert journal.outcomes("a") == []


def test_one_process_has_the_folder(tmp_path: Path) -> None:
    first, second = Journal(tmp_path), Journal(tmp_path)
    assert first.open()
    assert not second.open()
    first.close()
    assert second.open()
    second.close()


def steps(journal: Journal, done: Callable[[str], None]) -> None:
    """A job's life; `done` is told what is acknowledged."""
    job = journal.create(a_job(total=3), some_documents(3))
    done("queued")
    job = replace(job, state="running")
    journal.save(job)
    done("running")
    journal.append("a", OUTCOMES[:2])
    done("two")
    journal.append("a", OUTCOMES[2:])
    done("three")
    journal.finish(replace(job, state="succeeded"))
    done("succeeded")
    journal.remove("a")
    done("removed")


# What may be found when the last of these was acknowledged: (state, documents done).
FOUND: dict[str, set[tuple[str, int] | None]] = {
    "": {None, ("queued", 0)},
    "queued": {("queued", 0), ("running", 0)},
    "running": {("running", 0), ("running", 2)},
    "two": {("running", 2), ("running", 3)},
    "three": {("running", 3), ("succeeded", 3), ("succeeded", 0)},
    "succeeded": {("succeeded", 3), ("succeeded", 0), None},
    "removed": {None},
}


@pytest.mark.parametrize("done_first", [False, True], ids=["before", "after"])
def test_a_crash_at_any_step_leaves_a_whole_job_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Open, done_first: bool
) -> None:
    crashes = 0
    for at in range(1000):
        folder = tmp_path / str(at)
        journal = opened(folder)
        calls = 0

        def crashing(real: Callable[..., Any], at: int = at) -> Callable[..., Any]:
            def call(*arguments: Any, **named: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls - 1 != at:
                    return real(*arguments, **named)
                if done_first and hasattr(made := real(*arguments, **named), "close"):
                    made.close()
                raise Crash

            return call

        acknowledged = [""]
        with monkeypatch.context() as patch:
            for owner, name in (
                (os, "fsync"), (Path, "rename"), (Path, "unlink"), (Path, "mkdir"), (Path, "open"),
            ):  # fmt: skip
                patch.setattr(owner, name, crashing(getattr(owner, name)))
            try:
                steps(journal, acknowledged.append)
            except Crash:
                crashes += 1
            else:
                break
        journal.close()
        check(opened(folder), acknowledged[-1])
    assert crashes > 20


def check(journal: Journal, acknowledged: str) -> None:
    jobs = journal.load()
    found = (jobs[0].state, jobs[0].done) if jobs else None
    assert found in FOUND[acknowledged], (found, acknowledged)
    if jobs and not jobs[0].ended:
        assert len(read_all(journal, "a")) == 3
        # And it can be ended and removed from here.
        journal.append("a", OUTCOMES[jobs[0].done :])
        assert journal.outcomes("a") == OUTCOMES
    names = {path.name for path in journal._folder.iterdir()}
    assert names <= {"lock", "a"}
    assert not jobs or not jobs[0].ended or not (journal._folder / "a/documents.jsonl").exists()


def test_outcomes_count_up_to_the_first_that_is_not_whole(tmp_path: Path, opened: Open) -> None:
    journal = opened(tmp_path)
    journal.create(a_job(total=3), some_documents(3))
    journal.append("a", OUTCOMES[:2])
    results = tmp_path / "a" / "results.jsonl"
    whole = results.read_bytes()
    for torn in (b'{"id":"d2","sta', b'{"id":"d2","status":"added"}', b"\0" * 40 + b"\n"):
        results.write_bytes(whole + torn)
        assert journal.outcomes("a") == OUTCOMES[:2]
        assert journal.load()[0].done == 2
        assert results.read_bytes() == whole


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"{", b"[]", b'{"id":"a"}', b"\xff\xfe", None],
)  # fmt: skip
def test_what_cannot_be_read_is_set_aside(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture, opened: Open
) -> None:
    journal = opened(tmp_path)
    kept = journal.create(a_job("good", 2, "reindex"), [])
    for _ in range(2):  # the same name may be there from before
        (tmp_path / "bad").mkdir()
        if content is not None:
            (tmp_path / "bad" / "job.json").write_bytes(content)
        with caplog.at_level(logging.ERROR):
            assert journal.load() == [kept]
        assert "set aside" in caplog.text
        assert (tmp_path / "unreadable" / "bad").is_dir()
        assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO])
def test_what_cannot_be_read_now_stays_where_it_is(
    tmp_path: Path, opened: Open, number: int
) -> None:
    journal = opened(tmp_path)
    kept = journal.create(a_job(total=1), some_documents(1))

    def refuse(path: Path) -> bytes:
        raise OSError(number, os.strerror(number), str(path))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        with pytest.raises(OSError, match=os.strerror(number)):
            journal.load()
    assert journal.load() == [kept]
    assert not (tmp_path / "unreadable").exists()


def test_a_job_under_another_name_is_set_aside(tmp_path: Path, opened: Open) -> None:
    journal = opened(tmp_path)
    journal.create(a_job("a", 1, "reindex"), [])
    (tmp_path / "a").rename(tmp_path / "b")
    assert journal.load() == []
    assert (tmp_path / "unreadable" / "b" / "job.json").exists()


def test_a_job_refused_by_the_disk_is_not_there_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Open
) -> None:
    journal = opened(tmp_path)
    real, at = os.fsync, 0
    while True:
        calls = 0

        def full(descriptor: int, at: int = at) -> None:
            nonlocal calls
            calls += 1
            if calls > at:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        try:
            journal.create(a_job(total=1), some_documents(1))
        except OSError:
            monkeypatch.setattr(os, "fsync", real)
            assert journal.load() == []
            at += 1
        else:
            break
    assert at == 4


def test_outcomes_that_do_not_fit_leave_those_before_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: Open
) -> None:
    journal = opened(tmp_path)
    journal.create(a_job(total=3), some_documents(3))
    journal.append("a", OUTCOMES[:1])

    class Short:
        """Takes half of what it is given, as a disk does that gets full."""

        def __init__(self, file: Any) -> None:
            self._file = file

        def __enter__(self) -> Any:
            self._file.__enter__()
            return self

        def __exit__(self, *arguments: Any) -> None:
            self._file.__exit__(*arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def write(self, data: bytes) -> int:
            return int(self._file.write(data[: len(data) // 2]))

    opening = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *one, **named: Short(opening(*one, **named)))
        with pytest.raises(OSError, match="No space"):
            journal.append("a", OUTCOMES[1:])
    journal.append("a", OUTCOMES[1:])
    assert journal.outcomes("a") == OUTCOMES


def test_jobs_of_a_later_version_are_read(tmp_path: Path, opened: Open) -> None:
    journal = opened(tmp_path)
    job: Job = journal.create(a_job(kind="reindex"), [])
    path = tmp_path / "a" / "job.json"
    path.write_bytes(path.read_bytes()[:-1] + b',"new":1}')
    assert journal.load() == [job]
