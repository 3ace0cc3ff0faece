"""A job: what was asked for, how far it is, and how it ended."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Literal

import msgspec

from gateway.search.types import Chunking

Kind = Literal["index", "reindex"]
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]

KINDS: Final[tuple[Kind, ...]] = ("index", "reindex")
STATES: Final[tuple[State, ...]] = ("queued", "running", "succeeded", "failed", "cancelled")
ENDED: Final[frozenset[State]] = frozenset({"succeeded", "failed", "cancelled"})


class JobReason(StrEnum):
    """Why a job failed, where it is not the reason of an error of a request."""

    # Some documents could not be indexed; the others are.
    DOCUMENTS_FAILED = "DOCUMENTS_FAILED"
    # No progress for JOB_STALL_SECONDS.
    JOB_STALLED = "JOB_STALLED"
    # The gateway was killed while it ran, again and again.
    GATEWAY_KILLED = "GATEWAY_KILLED"


class JobError(msgspec.Struct, frozen=True):
    """Why a job, or one document of it, failed. reason: for programs; detail: for people."""

    reason: str
    detail: str


class DocumentOutcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one document of an index job; `error` says why it failed.

    born_at: of the collection that it is in; None where it failed.
    """

    id: str
    status: Literal["added", "replaced", "unchanged", "failed"]
    chunks: int = 0
    truncated_chunks: int = 0
    born_at: int | None = None
    error: JobError | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One job, as it is kept. Times are RFC 3339 in UTC.

    number: jobs are run in the order of their numbers.
    chunking: what the request named; None takes the collection's own.
    done, total: documents; total is 0 until it is known.
    spooled_bytes: of the documents that wait on the disk.
    kills: how often in a row a gateway was killed while it ran the job, and it had got no
        further meanwhile.
    cancelling: it is to end, and had not when this was written.
    """

    id: str
    number: int
    kind: Kind
    collection: str
    chunking: Chunking | None
    created_at: str
    state: State = "queued"
    done: int = 0
    total: int = 0
    spooled_bytes: int = 0
    kills: int = 0
    cancelling: bool = False
    started_at: str | None = None
    finished_at: str | None = None
    error: JobError | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing becomes of it any more."""
        return self.state in ENDED
