"""The processes, the writers and the ledger, and what is looked at when they have done."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from chaos.checks import DEFAULT_CHUNKING, Checked, check
from chaos.folder import Swept, check_folder
from chaos.jobs import JobWriter
from chaos.ledger import Ledger
from chaos.processes import Cluster, running
from chaos.writers import Writer

from gateway.search.types import Chunking

COLLECTION: Final = "documents"
SOLE_WRITERS: Final = 4
SOLE_DOCUMENTS: Final = 8
SHARED_DOCUMENTS: Final = 6
JOB_DOCUMENTS: Final = 8


class Actor(Protocol):
    """A client that is at work until it is over."""

    async def run(self, over: asyncio.Event) -> None:
        """Returns soon after `over` is set."""


@dataclass(slots=True)
class Outcome:
    """What was done, and everything that was wrong. counts: for the table."""

    seed: int
    duration_s: float = 0.0
    kills: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    checks: list[Checked] = field(default_factory=list)
    swept: Swept = field(default_factory=Swept)
    faults: list[str] = field(default_factory=list)


class Stage:
    """A running system that is written to. outcome: complete once the stage is left."""

    def __init__(self, seed: int, cluster: Cluster) -> None:
        self.seed = seed
        self.cluster = cluster
        self.ledger = Ledger()
        self.outcome = Outcome(seed)
        documents = _documents()
        self.writers = [
            Writer(name, seed, cluster, self.ledger, document_ids)
            for name, document_ids in documents.items()
        ]
        by_job = [f"job/{m}" for m in range(JOB_DOCUMENTS)]
        self.jobs = JobWriter(seed, cluster, self.ledger, by_job)
        self.document_ids = sorted({one for each in documents.values() for one in each}) + by_job
        for document_id in self.document_ids:
            self.ledger.settle(document_id, None)

    async def perform(
        self,
        act: Callable[[asyncio.Event], Awaitable[None]],
        *actors: Actor,
        patient: bool = False,
    ) -> None:
        """Has writers and actors work until `act` sets the event it is given.

        patient: no writer gives a short time-out, and no write may be refused.
        """
        for writer in self.writers:
            writer.patient = patient
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            everybody: tuple[Actor, ...] = (*self.writers, self.jobs, *actors)
            for actor in everybody:
                group.create_task(actor.run(over))
            await act(over)
        await self.cluster.until_ready()

    async def check(self, chunking: Chunking = DEFAULT_CHUNKING) -> None:
        """Looks at every document through the API. chunking: the collection's own."""
        checked = await check(self.cluster.url, self.ledger, self.document_ids, chunking)
        self.outcome.checks.append(checked)


@asynccontextmanager
async def staged(
    folder: Path, model: dict[str, str], seed: int, **settings: str
) -> AsyncIterator[Stage]:
    """Starts everything in `folder`; at the end all is stopped and the folder looked at.

    model: the embedder's settings and VECTOR_DIM; settings: the gateway's.
    """
    started_s = time.monotonic()
    async with running(folder, model, **settings) as cluster:
        stage = Stage(seed, cluster)
        yield stage
    outcome = stage.outcome
    outcome.swept = await check_folder(cluster.data_dir, COLLECTION)
    outcome.answers = stage.ledger.answers
    outcome.faults += [
        *(fault for checked in outcome.checks for fault in checked.faults),
        *outcome.swept.faults,
        *(answer for writer in stage.writers for answer in writer.unexpected),
        *stage.jobs.faults,
        *cluster.faults,
    ]
    outcome.duration_s = time.monotonic() - started_s


def _documents() -> dict[str, list[str]]:
    """Which documents each writer writes: its own, and for two of them the same."""
    sole = {
        f"sole{n}": [f"sole/{n}/{m}" for m in range(SOLE_DOCUMENTS)] for n in range(SOLE_WRITERS)
    }
    shared = [f"shared/{m}" for m in range(SHARED_DOCUMENTS)]
    return sole | {"one of two": shared, "other of two": shared}
