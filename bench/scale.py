"""The embedded store as it grows: speed, memory, restart and recall, before and after `optimize`.

The gateway's own `Search` writes and searches, in this process; the store is its child, as
always. Documents are synthetic (`scale_corpus`): only a few thousand passages and the questions
are really embedded. One store grows and is never optimised; at each size at which it would be, a
copy of it is, and both are measured.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import psutil
import uvloop

from bench import worker
from bench.concurrency import in_flight
from bench.datasets import question_texts
from bench.embedding import embed_all
from bench.options import Options
from bench.processes import rss_mib
from bench.report import Report, Table, Target, number
from bench.scale_corpus import (
    CHUNKS_A_DOCUMENT,
    Corpus,
    Nearest,
    base_passages,
    team_of,
)
from bench.scale_store import disk_mib, opened, store_pid
from bench.stats import percentile
from bench.vectors import Floats
from gateway.search.filters import Equals, Filter
from gateway.search.search import Search
from gateway.search.settings import StoreSettings
from gateway.search.types import Mode, Model
from gateway.search.types import Target as Destination
from gateway.search.versions import NewVersion
from runtime.deadline import Deadline

SIZES: Final = (1_000, 10_000, 50_000, 100_000, 200_000)
QUICK_SIZES: Final = (1_000, 20_000)
PASSAGES: Final = 3_000
QUICK_PASSAGES: Final = 300
QUESTIONS: Final = 200
# As /query asks for by default (RERANK_CANDIDATES).
LIMIT: Final = 30
DEPTH: Final = 10
# Documents written at once, as by one POST /index.
WRITERS: Final = 8
TIMEOUT_S: Final = 600.0
# The size that is to be comfortable, and what that means.
COMFORTABLE: Final = 100_000
MOST_P99_MS: Final = 50.0
MOST_RESTART_S: Final = 5.0
LEAST_RECALL: Final = 0.98
# States of a store; what the settings say is OPTIMISED, and GRAPH has this many edges besides.
WRITTEN: Final = "as written"
OPTIMISED: Final = "optimised"
GRAPH: Final = "with a graph"
GRAPH_EDGES: Final = 16
# FILTER_FIELDS names the team, not the shelf.
_TEAM: Final = Filter((Equals("team", team_of(0)),))
_SHELF: Final = Filter((Equals("shelf", team_of(0)),))
# Kind of search → mode and filter.
SEARCHES: Final[dict[str, tuple[Mode, Filter | None]]] = {
    "dense": ("dense", None),
    "hybrid": ("hybrid", None),
    "dense, filter": ("dense", _TEAM),
    "hybrid, filter": ("hybrid", _TEAM),
    "dense, filter without index": ("dense", _SHELF),
}
# Kinds that take so long that they are not asked every question.
SLOW: Final = frozenset({"dense, filter without index"})
SLOW_QUESTIONS: Final = 20
_COLLECTION: Final = "documents"


def run(options: Options) -> Report:
    """Grows a store to SIZES."""
    sizes = QUICK_SIZES if options.quick else SIZES
    texts = base_passages(options.data, QUICK_PASSAGES if options.quick else PASSAGES)
    questions = question_texts(options.data)
    step = len(questions) // QUESTIONS
    questions = questions[: QUESTIONS * step : step]
    with worker.running("embedder_worker") as embedder:
        base = uvloop.run(embed_all(embedder.target, texts)).vectors
        asked = uvloop.run(embed_all(embedder.target, questions)).vectors
    corpus = Corpus(texts, base)
    with tempfile.TemporaryDirectory(prefix="bench-scale-") as folder:
        growing = _Growing(Path(folder), corpus, questions, asked)
        rows = [uvloop.run(growing.measure(size)) for size in sizes]
    return _report(rows)


class _Growing:
    """A store that is never optimised, and a copy of it that is."""

    def __init__(
        self, folder: Path, corpus: Corpus, questions: Sequence[str], asked: Floats
    ) -> None:
        self._folder = folder
        self._corpus = corpus
        self._questions = questions
        self._asked = asked
        self._nearest = Nearest(asked, DEPTH)
        self._nearest_of_team = Nearest(asked, DEPTH)
        self._documents = 0

    async def measure(self, chunks: int) -> dict[str, Any]:
        """Grows the store to `chunks`, and measures it as it is and optimised."""
        grown = self._folder / "grown"
        never = StoreSettings(data_dir=grown, filter_fields="team", optimize_from_vectors=0)
        async with opened(never) as (search, _):
            written = await self._grow(search, chunks // CHUNKS_A_DOCUMENT)
        async with opened(never) as (search, opening):
            states = {WRITTEN: opening | await self._searched(search)}
        states[WRITTEN]["disk_mib"] = disk_mib(grown)
        usual = StoreSettings()
        if chunks >= usual.optimize_from_vectors:
            states[OPTIMISED] = await self._optimised(grown, usual.hnsw_m)
        if chunks >= COMFORTABLE:
            states[GRAPH] = await self._optimised(grown, GRAPH_EDGES)
        return {"chunks": chunks, "written": written, "states": states}

    async def _optimised(self, grown: Path, edges: int) -> dict[str, Any]:
        """Measures a copy of the store, optimised by a start. edges: of a graph; 0: none."""
        folder = self._folder / "optimised"
        shutil.copytree(grown, folder)
        store = StoreSettings(data_dir=folder, filter_fields="team", hnsw_m=edges)
        async with opened(store) as (_, opening):
            first = {f"first_{name}": value for name, value in opening.items()}
        async with opened(store) as (search, opening):
            measured = opening | first | await self._searched(search)
        measured["disk_mib"] = disk_mib(folder)
        shutil.rmtree(folder)
        return measured

    async def _grow(self, search: Search, documents: int) -> dict[str, float]:
        """Writes documents up to so many."""
        numbers = range(self._documents, documents)
        model = Model("bench", "0" * 64, self._asked.shape[1])
        await search.claim(_COLLECTION, model, Deadline.after(TIMEOUT_S))
        store = store_pid()

        async def put(at: int) -> None:
            new = self._corpus.document(at)

            async def prepare(_: Destination) -> NewVersion:
                return new

            await search.put_document(
                _COLLECTION, new.document_id, prepare, Deadline.after(TIMEOUT_S)
            )

        started_s = time.perf_counter()
        await in_flight(put, numbers, WRITERS)
        seconds = time.perf_counter() - started_s
        for at in numbers:
            new = self._corpus.document(at)
            ids = [f"{new.document_id}#{ordinal}" for ordinal in range(len(new.chunks))]
            vectors = self._corpus.vectors(at)
            self._nearest.add(ids, vectors)
            if new.metadata["team"] == team_of(0):
                self._nearest_of_team.add(ids, vectors)
        chunks = len(numbers) * CHUNKS_A_DOCUMENT
        self._documents = documents
        return {
            "chunks_per_s": chunks / seconds,
            "store_rss_mib": rss_mib(store),
            "gateway_rss_mib": rss_mib(psutil.Process().pid),
        }

    async def _searched(self, search: Search) -> dict[str, Any]:
        """Every question in every kind of search, one after the other."""
        await self._ask(search, "hybrid")  # once for caches of files
        kinds = {kind: await self._ask(search, kind) for kind in SEARCHES}
        return {
            "searches": kinds,
            "recall": self._nearest.recall(await self._found(search, "dense")),
            "filtered_recall": self._nearest_of_team.recall(
                await self._found(search, "dense, filter")
            ),
            "searched_rss_mib": rss_mib(store_pid()),
        }

    async def _ask(self, search: Search, kind: str) -> dict[str, float]:
        latencies_ms = []
        asked = SLOW_QUESTIONS if kind in SLOW else len(self._questions)
        for at in range(asked):
            started_s = time.perf_counter()
            await self._nearest_to(search, at, kind, LIMIT)
            latencies_ms.append((time.perf_counter() - started_s) * 1000)
        return {"p50_ms": percentile(latencies_ms, 50), "p99_ms": percentile(latencies_ms, 99)}

    async def _found(self, search: Search, kind: str) -> list[list[str]]:
        return [
            await self._nearest_to(search, at, kind, DEPTH) for at in range(len(self._questions))
        ]

    async def _nearest_to(self, search: Search, at: int, kind: str, limit: int) -> list[str]:
        mode, filter_ = SEARCHES[kind]
        hits = await search.nearest(
            _COLLECTION,
            text=self._questions[at],
            vector=self._asked[at],
            mode=mode,
            filter=filter_,
            limit=limit,
            deadline=Deadline.after(TIMEOUT_S),
        )
        return [hit.chunk_id for hit in hits]


def _report(rows: list[dict[str, Any]]) -> Report:
    states = [
        (f"{row['chunks']:,}, {name}", state)
        for row in rows
        for name, state in row["states"].items()
    ]
    searches = Table(
        f"Searches for {LIMIT} passages, one after the other, p50 / p99 in ms, and recall@{DEPTH} "
        "of the dense ones",
        ("chunks", *SEARCHES, "recall", "recall, filter"),
        [
            (
                name,
                *(
                    f"{number(times['p50_ms'])} / {number(times['p99_ms'])}"
                    for times in state["searches"].values()
                ),
                f"{state['recall']:.3f}",
                f"{state['filtered_recall']:.3f}",
            )
            for name, state in states
        ],
    )
    costs = Table(
        "What it takes: the start that optimises, every other start (from opening to the first "
        "answer), resident memory of the store's process, and disk",
        ("chunks", "optimising s", "with RSS MiB", "start s", "RSS MiB", "disk MiB"),
        [
            (
                name,
                number(state["first_open_s"]) if "first_open_s" in state else "",
                number(state["first_peak_rss_mib"]) if "first_open_s" in state else "",
                number(state["open_s"]),
                number(state["searched_rss_mib"]),
                number(state["disk_mib"]),
            )
            for name, state in states
        ],
    )
    growth = Table(
        f"Writing by the record protocol, {WRITERS} documents at once, nothing embedded",
        ("up to chunks", "chunks/s", "store RSS MiB", "gateway RSS MiB"),
        [
            (
                f"{row['chunks']:,}",
                *(
                    number(row["written"][name])
                    for name in ("chunks_per_s", "store_rss_mib", "gateway_rss_mib")
                ),
            )
            for row in rows
        ],
    )
    return Report({"rows": rows}, [searches, costs, growth], _targets(rows))


def _targets(rows: list[dict[str, Any]]) -> list[Target]:
    """That recall is kept at every size, and that COMFORTABLE is."""
    kept = [row["states"][OPTIMISED] for row in rows if OPTIMISED in row["states"]]
    made = [
        Target(
            f"recall@{DEPTH} of the optimised store, the least of all sizes",
            min(state["recall"] for state in kept),
            LEAST_RECALL,
            at_most=False,
        )
    ]
    for row in rows:
        if row["chunks"] == COMFORTABLE:
            state = row["states"][OPTIMISED]
            made += [
                Target(
                    f"p99 of the slowest search at {COMFORTABLE:,} chunks, fields indexed, ms",
                    max(
                        times["p99_ms"]
                        for kind, times in state["searches"].items()
                        if kind not in SLOW
                    ),
                    MOST_P99_MS,
                    at_most=True,
                ),
                Target(
                    f"seconds from opening {COMFORTABLE:,} chunks to the first answer",
                    state["open_s"],
                    MOST_RESTART_S,
                    at_most=True,
                ),
            ]
    return made
