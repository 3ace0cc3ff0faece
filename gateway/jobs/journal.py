"""The jobs on the disk: what a gateway that starts again goes on from.

DATA_DIR/jobs/lock                       held by the gateway that runs the jobs
DATA_DIR/jobs/<job id>/job.json          the job, replaced as a whole
DATA_DIR/jobs/<job id>/documents.jsonl   of an index job: a document a line, until it ends
DATA_DIR/jobs/<job id>/results.jsonl     of an index job: an outcome a line, in the same order
DATA_DIR/jobs/unreadable/                what could not be read, for people to look at

A folder gets its name by one rename once all in it is durable, and loses it by one: names with
a dot are of what was not there yet, or is no more. The lines of results.jsonl are not synced
one by one. Of those that a power cut takes, the documents are indexed again, and found
unchanged.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import IO, Final

import msgspec

from gateway.files import sync_folder, write_durably
from gateway.indexing import Documents, NewDocument
from gateway.jobs.job import DocumentOutcome, Job

log = logging.getLogger(__name__)

JOB: Final = "job.json"
DOCUMENTS: Final = "documents.jsonl"
RESULTS: Final = "results.jsonl"
UNREADABLE: Final = "unreadable"
_NEW: Final = ".new-"
_OLD: Final = ".old-"

_encoder: Final = msgspec.json.Encoder()
_outcome: Final = msgspec.json.Decoder(DocumentOutcome)
_document: Final = msgspec.json.Decoder(NewDocument)


class Journal:
    """The folder of the jobs. Every method reads or writes the disk and raises OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: IO[bytes] | None = None

    def open(self) -> bool:
        """Takes the folder for this process; False when another one has it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        # Durable up to DATA_DIR, which may be as new.
        for folder in (self._folder, *self._folder.parents[:2]):
            sync_folder(folder)
        lock = (self._folder / "lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        except OSError:  # a file system without locks
            lock.close()
            raise
        self._lock = lock
        return True

    def close(self) -> None:
        """Lets go of the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def load(self) -> list[Job]:
        """All jobs, in the order of their numbers.

        What is half-written was never acknowledged and is removed; what is damaged is set
        aside. Neither keeps the rest from being found. A disk that cannot be read now raises
        OSError: what it holds was acknowledged, and may be whole.
        """
        jobs: list[Job] = []
        for folder in self._folder.iterdir():
            if not folder.is_dir() or folder.name == UNREADABLE:
                continue
            if folder.name.startswith((_NEW, _OLD)):
                rmtree(folder, ignore_errors=True)
                continue
            try:
                jobs.append(_read(folder))
            # Damaged: msgspec's errors and UnicodeDecodeError are ValueErrors.
            except (FileNotFoundError, ValueError) as error:
                self._set_aside(folder, error)
        return sorted(jobs, key=lambda job: job.number)

    def create(self, job: Job, documents: Documents | Sequence[NewDocument]) -> Job:
        """Keeps a new job, with the documents of an index job; durable once this returns."""
        unfinished = self._folder / (_NEW + job.id)
        try:
            unfinished.mkdir()
            if job.kind == "index":
                spooled_bytes = _write_lines(unfinished / DOCUMENTS, documents)
                job = msgspec.structs.replace(job, spooled_bytes=spooled_bytes)
            write_durably(unfinished / JOB, _encoder.encode(job))
            unfinished.rename(self._folder / job.id)
            sync_folder(self._folder)
        except Exception:
            # Refused: it must not be there after a restart either.
            rmtree(unfinished, ignore_errors=True)
            rmtree(self._folder / job.id, ignore_errors=True)
            raise
        return job

    def save(self, job: Job) -> None:
        """Replaces what is kept of the job; durable once this returns."""
        write_durably(self._folder / job.id / JOB, _encoder.encode(job))

    def finish(self, job: Job) -> None:
        """Keeps how the job ended, and lets go of its documents."""
        folder = self._folder / job.id
        if (folder / RESULTS).exists():
            with (folder / RESULTS).open("rb") as file:
                os.fsync(file.fileno())
        self.save(job)
        (folder / DOCUMENTS).unlink(missing_ok=True)

    def remove(self, job_id: str) -> None:
        """Forgets a job."""
        doomed = self._folder / (_OLD + job_id)
        (self._folder / job_id).rename(doomed)
        rmtree(doomed)

    @contextmanager
    def documents(self, job_id: str, skip: int) -> Iterator[Spool]:
        """The documents of an index job, from the one after the first `skip` on."""
        with (self._folder / job_id / DOCUMENTS).open("rb") as file:
            for _ in range(skip):
                file.readline()
            yield Spool(file)

    def append(self, job_id: str, outcomes: Iterable[DocumentOutcome]) -> None:
        """Adds outcomes; all of them or, if this raises, none."""
        lines = b"".join(_encoder.encode(one) + b"\n" for one in outcomes)
        with (self._folder / job_id / RESULTS).open("ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if file.write(lines) != len(lines):
                # What follows a torn line could not be read.
                file.truncate(size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def outcomes(self, job_id: str) -> list[DocumentOutcome]:
        """What became of the documents so far, in their order."""
        return _read_outcomes(self._folder / job_id)[0]

    def _set_aside(self, folder: Path, error: Exception) -> None:
        log.error("A job cannot be read and is set aside: %s", error, extra={"job": folder.name})
        try:
            aside = self._folder / UNREADABLE
            aside.mkdir(exist_ok=True)
            if (aside / folder.name).exists():
                rmtree(aside / folder.name)
            folder.rename(aside / folder.name)
        except OSError as worse:
            log.error("It stays where it is: %s", worse, extra={"job": folder.name})


class Spool:
    """The documents of a job, read as they are needed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def take(self, most: int, most_characters: int) -> list[NewDocument]:
        """The next documents, at least one; empty at the end.

        The last one taken may lead beyond `most_characters`.
        """
        taken: list[NewDocument] = []
        characters = 0
        while len(taken) < most and characters < most_characters:
            line = self._file.readline()
            if not line:
                break
            taken.append(_document.decode(line))
            characters += len(taken[-1].text)
        return taken


def _read(folder: Path) -> Job:
    """The job in the folder; an index job as far as its outcomes say."""
    job = msgspec.json.decode((folder / JOB).read_bytes(), type=Job)
    if job.id != folder.name:
        raise ValueError("job.json is of another job")
    if job.ended:
        (folder / DOCUMENTS).unlink(missing_ok=True)  # a crash came between
        return job
    if job.kind != "index":
        return job
    outcomes, size = _read_outcomes(folder)
    if (folder / RESULTS).exists():
        os.truncate(folder / RESULTS, size)
    kills = 0 if len(outcomes) > job.done else job.kills
    return msgspec.structs.replace(job, done=len(outcomes), kills=kills)


def _read_outcomes(folder: Path) -> tuple[list[DocumentOutcome], int]:
    """The outcomes up to the first line that is not whole, and the bytes they take."""
    outcomes: list[DocumentOutcome] = []
    size = 0
    try:
        lines = (folder / RESULTS).read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return outcomes, size
    for line in lines:
        try:
            outcomes.append(_outcome.decode(line))
        except ValueError:
            break
        if not line.endswith(b"\n"):
            outcomes.pop()
            break
        size += len(line)
    return outcomes, size


def _write_lines(path: Path, documents: Iterable[NewDocument]) -> int:
    """Durable once this returns; the size in bytes."""
    with path.open("xb") as file:
        for document in documents:
            file.write(_encoder.encode(document) + b"\n")
        file.flush()
        os.fsync(file.fileno())
        return file.tell()
