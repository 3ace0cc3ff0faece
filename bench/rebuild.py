"""What those who read and write notice of a rebuild of the collection (POST /reindex).

Each round asks for a while, then asks on while the whole collection is cut anew, embedded and
switched to. A writer replaces documents throughout, and at the end every one must be as it was
last acknowledged. No question is asked twice, so that none is cached.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import httpx
import uvloop

from bench import prepared, system
from bench.api import Api, connected
from bench.datasets import Document, rust_book
from bench.interference import reply_row
from bench.load import Reply, ask, post
from bench.options import Options
from bench.report import Report, Table, Target, number

ROUNDS: Final = 3
BEFORE_S: Final = 15.0
# Searches before a rebuild, however long they take: fewer have no 95th percentile.
LEAST_BEFORE: Final = 60
# Each rebuild cuts otherwise than the one before, so that nothing can be taken over.
CHUNKINGS: Final = ((384, 40), (512, 50), (448, 45))
# Old generations are to go between the rounds; the least that may be set.
KEEP_S: Final = 10
QUICK_STRIDE: Final = 8
# More than anybody asks in the minutes that it takes.
QUESTIONS: Final = 20_000
KINDS: Final[tuple[tuple[str, dict[str, bool]], ...]] = (
    ("/search without reranking", {"rerank": False}),
    ("/search", {}),
)
WRITTEN_DOCUMENTS: Final = 10
WRITE_PAUSE_S: Final = 0.5
JOB_TIMEOUT_S: Final = 1800.0
POLL_S: Final = 0.1
BEFORE: Final = "before"
DURING: Final = "during the rebuild"
MOST_SLOWDOWN: Final = 2.0


@dataclass(frozen=True, slots=True)
class Round:
    """Replies before and during one rebuild; took_s: from the request to the switch."""

    before: list[Reply]
    during: list[Reply]
    documents: int
    took_s: float


@dataclass(slots=True)
class Writes:
    """What was written: the last acknowledged text by document, and how many writes failed."""

    texts: dict[str, str] = field(default_factory=dict)
    acknowledged: int = 0
    failed: int = 0
    lost: int = 0


def run(options: Options) -> Report:
    """Measures on one system, rebuild after rebuild."""
    book = rust_book(options.data)[:: QUICK_STRIDE if options.quick else 1]
    questions = iter(prepared.questions(options.data, QUESTIONS))
    with system.running({"REINDEX_KEEP_SECONDS": str(KEEP_S)}) as running:
        rounds, writes = uvloop.run(_measure(running, book, questions, options))
    rows = list(_rows(rounds))
    rebuilds = [{"documents": one.documents, "took_s": one.took_s} for one in rounds]
    counts = {name: value for name, value in asdict(writes).items() if name != "texts"}
    figures = {"replies": rows, "rebuilds": rebuilds, "writes": counts}
    return Report(figures, list(_tables(rows, rebuilds, writes)), list(targets(rows, writes)))


def _rows(rounds: Sequence[Round]) -> Iterator[dict[str, Any]]:
    """Replies of all rounds, by kind, before and during."""
    for start, (kind, _) in enumerate(KINDS):
        for when in (BEFORE, DURING):
            parts = [one.before if when == BEFORE else one.during for one in rounds]
            replies = [reply for part in parts for reply in part[start :: len(KINDS)]]
            yield reply_row(kind, when, replies)


async def _measure(
    running: system.System, book: Sequence[Document], questions: Iterator[str], options: Options
) -> tuple[list[Round], Writes]:
    over = asyncio.Event()
    writes = Writes()
    async with connected(running.url) as api:
        await api.index(book)
        writing = asyncio.create_task(_write(api, book, writes, over))
        try:
            rounds = [
                await _round(running, api, questions, chunking, options.seconds(BEFORE_S))
                for chunking in CHUNKINGS[: options.rounds(ROUNDS)]
            ]
        finally:
            over.set()
            await writing
        for document_id, text in writes.texts.items():
            writes.lost += await api.text(document_id) != text
    return rounds, writes


async def _round(
    running: system.System,
    api: Api,
    questions: Iterator[str],
    chunking: tuple[int, int],
    before_s: float,
) -> Round:
    address = running.address
    end_s = time.perf_counter() + before_s
    before = await ask(address, _requests(address, questions), lambda: time.perf_counter() >= end_s)
    started_s = time.perf_counter()
    rebuilding = asyncio.create_task(_rebuilt(api, chunking))
    during = await ask(address, _requests(address, questions), rebuilding.done)
    documents = await rebuilding
    return Round(before, during, documents, time.perf_counter() - started_s)


async def _rebuilt(api: Api, chunking: tuple[int, int]) -> int:
    """Documents rebuilt. Raises RuntimeError when the job fails, TimeoutError when it hangs."""
    job_id = await api.reindex(chunk_size=chunking[0], overlap=chunking[1])
    async with asyncio.timeout(JOB_TIMEOUT_S):
        while True:
            job = await api.job(job_id)
            if job["state"] not in ("queued", "running"):
                break
            await asyncio.sleep(POLL_S)
    if job["state"] != "succeeded":
        raise RuntimeError(f"the rebuild ended: {job}")
    return int(job["progress"]["total"])


async def _write(api: Api, book: Sequence[Document], writes: Writes, over: asyncio.Event) -> None:
    """Replaces one small document after the other until it is `over`."""
    for edition in itertools.count():
        if over.is_set():
            return
        text = f"Edition {edition}.\n\n{book[edition % len(book)].text[:1500]}"
        document = Document(f"written/{edition % WRITTEN_DOCUMENTS}", text)
        try:
            await api.index([document])
        except httpx.HTTPError:
            writes.failed += 1
        else:
            writes.acknowledged += 1
            writes.texts[document.id] = text
        await asyncio.sleep(WRITE_PAUSE_S)


def _requests(address: tuple[str, int], questions: Iterator[str]) -> Iterator[bytes]:
    """The kinds in turn, each with a question of its own."""
    for (_, rest), question in zip(itertools.cycle(KINDS), questions, strict=False):
        yield post(address, "/search", {"query": question} | rest)


def targets(rows: Sequence[dict[str, Any]], writes: Writes) -> Iterator[Target]:
    """What was to be reached."""
    of = {(row["kind"], row["when"]): row for row in rows}
    for kind, _ in KINDS:
        before, during = (of[kind, when]["took_ms"]["p95"] for when in (BEFORE, DURING))
        yield Target(
            f"p95 of {kind} during a rebuild over before it",
            during / before,
            MOST_SLOWDOWN,
            at_most=True,
        )
    yield Target("failed reads", sum(row["refused"] for row in rows), 0, at_most=True)
    yield Target("failed writes", writes.failed, 0, at_most=True)
    yield Target("lost writes", writes.lost, 0, at_most=True)


def _tables(
    rows: Sequence[dict[str, Any]], rebuilds: Sequence[dict[str, Any]], writes: Writes
) -> Iterator[Table]:
    yield Table(
        "Searches before and during a rebuild, one client, ms",
        ("request", "when", "answers", "p50", "p95", "p99", "failed", "degraded"),
        [
            (
                row["kind"],
                row["when"],
                str(row["answers"]),
                *(number(row["took_ms"][f"p{percent}"]) for percent in (50, 95, 99)),
                str(row["refused"]),
                ", ".join(f"{part}: {count}" for part, count in row["degraded"].items()) or "0",
            )
            for row in rows
        ],
    )
    yield Table(
        "Rebuilds",
        ("rebuild", "documents", "took s"),
        [
            (str(turn), str(one["documents"]), number(one["took_s"]))
            for turn, one in enumerate(rebuilds, 1)
        ],
    )
    yield Table(
        "Writes throughout",
        ("writes", "number"),
        [
            ("acknowledged", str(writes.acknowledged)),
            ("failed", str(writes.failed)),
            ("lost", str(writes.lost)),
        ],
    )
