"""What was asked for, what came of it, and what may therefore be stored.

A write that was acknowledged happened between its start and its end; one that was not
happened in that time or never. So a write can be what is stored unless an acknowledged one
began after its end: with one writer that leaves the last acknowledged write and the
unacknowledged ones after it, with two the outcomes of every order they could have come in.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import dataclass

from gateway.search.types import Chunking


@dataclass(frozen=True, slots=True)
class Content:
    """A document. mark: what its metadata says beside its id; chunking: None for the default."""

    text: str
    mark: int
    chunking: Chunking | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """One write of one document. content: None for a delete.

    started_s, ended_s: on the monotonic clock, seen by the writer.
    answer: status and reason, or how the connection ended.
    """

    document_id: str
    content: Content | None
    started_s: float
    ended_s: float
    acknowledged: bool
    answer: str


class Ledger:
    """Every write, by document."""

    def __init__(self) -> None:
        self._writes: dict[str, list[Write]] = defaultdict(list)
        self._grown = asyncio.Event()
        self.acknowledged = 0
        self.answers: Counter[str] = Counter()

    def add(self, write: Write) -> None:
        """Notes a write that has ended."""
        self._writes[write.document_id].append(write)
        self.answers[f"{'delete' if write.content is None else 'index'}: {write.answer}"] += 1
        self.acknowledged += write.acknowledged
        self._grown.set()

    def settle(self, document_id: str, content: Content | None) -> None:
        """Begins afresh with what was found stored, while nobody writes."""
        now_s = time.monotonic()
        self._writes[document_id] = [Write(document_id, content, now_s, now_s, True, "found")]

    def history(self, document_id: str) -> list[Write]:
        """The writes since the document was settled, by the time they ended."""
        return self._writes[document_id]

    def possible(self, document_id: str) -> set[Content | None]:
        """What may be stored; None stands for nothing."""
        writes = self._writes[document_id]
        return {
            write.content
            for write in writes
            if not any(
                other.acknowledged and other.started_s >= write.ended_s and other is not write
                for other in writes
            )
        }

    async def until_acknowledged(self, count: int, timeout_s: float) -> None:
        """Returns once so many writes were acknowledged in all. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while self.acknowledged < count:
                self._grown.clear()
                await self._grown.wait()
