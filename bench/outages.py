"""What questions notice of replicas that die, leave and arrive while the system is busy.

Questions that nobody has asked before are asked in a closed loop, and documents are indexed
beside them, while two embedders and two rerankers become one and two again.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import uvloop

from bench import cluster
from bench.api import connected
from bench.cluster import Cluster, Replicas, calls
from bench.datasets import COLLECTIONS, Document, beir, squad_questions
from bench.load import Reply, ask, post
from bench.options import Options
from bench.report import Table, Target, number
from bench.scaling import imbalance
from bench.stats import percentile
from bench.worker import Worker

PHASE_S: Final = 10.0
# When in a phase a replica goes.
BEFORE_S: Final = 2.0
QUERY_CLIENTS: Final = 8
DOCUMENTS_AT_ONCE: Final = 8
# Of 30: several questions a second beside the indexing, on two cores.
RERANK_CANDIDATES: Final = 5
FIRST_DOCUMENTS: Final = 200
# Longer than a connection may live (60 s by default, 66 with gRPC's jitter) and DNS may be old.
ARRIVAL_LIMIT_S: Final = 120.0
POLL_INTERVAL_S: Final = 0.1
# In --quick, in the place of the default minute.
QUICK_AGE_S: Final = 5
METHODS: Final = {"embedder": "EmbedTexts", "reranker": "ScorePassages"}


@dataclass(frozen=True, slots=True)
class Phase:
    """The load's replies while something happened."""

    name: str
    queries: list[Reply]
    indexing: list[Reply]

    def failed(self) -> int:
        """Questions without an answer."""
        return sum(reply.status != 200 for reply in self.queries)

    def index_failed(self) -> int:
        """`/index` requests that were not carried out."""
        return sum(reply.status != 200 for reply in self.indexing)

    def degraded(self, stage: str) -> int:
        """Answers for which that stage was missing."""
        return sum(
            stage in json.loads(reply.body)["degraded"]
            for reply in self.queries
            if reply.status == 200
        )

    def latency_ms(self, percent: float) -> float:
        """Of the questions."""
        return percentile([reply.latency_s for reply in self.queries], percent) * 1000


@dataclass(slots=True)
class Outages:
    """calls: of each replica in the undisturbed phase; arrival_s: from DNS to the first call."""

    phases: list[Phase] = field(default_factory=list)
    calls: dict[str, list[float]] = field(default_factory=dict)
    arrival_s: dict[str, float] = field(default_factory=dict)


def measure(options: Options) -> Outages:
    """Starts the cluster, and lets everything happen to it, one thing after the other."""
    age = {"max_connection_age_seconds": QUICK_AGE_S} if options.quick else {}
    collections = [beir(options.data / name).documents for name in COLLECTIONS]
    documents = [document for one in collections for document in one]
    questions = squad_questions(options.data)
    with cluster.running(
        embedders=2,
        rerankers=2,
        gateway={"rerank_candidates": RERANK_CANDIDATES},
        threads=1,
        **age,
    ) as running:
        return uvloop.run(_measure(running, documents, questions, options.seconds(PHASE_S)))


async def _measure(
    running: Cluster, documents: Sequence[Document], questions: Sequence[str], phase_s: float
) -> Outages:
    async with connected(running.url) as api:
        await api.index(documents[:FIRST_DOCUMENTS])
    load = Load(running.address, documents[FIRST_DOCUMENTS:], questions)
    kinds = {"embedder": running.embedders, "reranker": running.rerankers}
    outages = Outages()

    async def leave(kind: Replicas, how: Callable[[Replicas, Worker], None]) -> None:
        await asyncio.sleep(min(BEFORE_S, phase_s / 4))
        await asyncio.to_thread(how, kind, kind.listed[0])
        await asyncio.sleep(phase_s)

    async def arrive() -> None:
        """One more of each, side by side."""
        arrivals_s = await asyncio.gather(
            *(arrived(kind, METHODS[name]) for name, kind in kinds.items())
        )
        outages.arrival_s = dict(zip(kinds, arrivals_s, strict=True))
        await asyncio.sleep(phase_s / 2)

    before = {name: _counts(kind, METHODS[name]) for name, kind in kinds.items()}
    outages.phases.append(await load.during("two of each", asyncio.sleep(phase_s)))
    for name, kind in kinds.items():
        after = _counts(kind, METHODS[name])
        outages.calls[name] = [b - a for a, b in zip(before[name], after, strict=True)]
    for name, act in (
        ("an embedder killed", leave(running.embedders, Replicas.kill)),
        ("a reranker killed", leave(running.rerankers, Replicas.kill)),
        ("one of each added", arrive()),
        ("an embedder stopped", leave(running.embedders, Replicas.stop)),
        ("a reranker stopped", leave(running.rerankers, Replicas.stop)),
    ):
        outages.phases.append(await load.during(name, act))
    return outages


class Load:
    """Questions that were never asked and documents that were never seen, without end."""

    def __init__(
        self, address: tuple[str, int], documents: Sequence[Document], questions: Sequence[str]
    ) -> None:
        self._address = address
        self._documents = documents
        self._questions = questions
        self._queries = self._all_queries()
        self._indexing = self._all_indexing()

    async def during(self, name: str, act: Awaitable[None]) -> Phase:
        """The replies to the load that was on while `act` took its course."""
        over = asyncio.Event()

        async def acting() -> None:
            try:
                await act
            finally:
                over.set()

        async with asyncio.TaskGroup() as group:
            asking = [
                group.create_task(ask(self._address, self._queries, over.is_set))
                for _ in range(QUERY_CLIENTS)
            ]
            indexing = group.create_task(ask(self._address, self._indexing, over.is_set))
            group.create_task(acting())
        return Phase(name, [reply for one in asking for reply in one.result()], indexing.result())

    def _all_queries(self) -> Iterator[bytes]:
        for count, question in enumerate(itertools.cycle(self._questions)):
            # A question that comes again is another one: the cache must not answer it.
            again = count // len(self._questions)
            text = f"{question} {again}" if again else question
            yield post(self._address, "/query", {"query": text})

    def _all_indexing(self) -> Iterator[bytes]:
        for again in itertools.count():
            for batch in _batches(self._documents):
                rows = [{"id": f"{one.id}/{again}", "text": f"{one.text} {again}"} for one in batch]
                yield post(self._address, "/index", {"documents": rows})


async def arrived(kind: Replicas, method: str) -> float:
    """Starts one more replica and announces it; seconds from then to its first call.

    Raises TimeoutError when none comes in ARRIVAL_LIMIT_S.
    """
    replica = await asyncio.to_thread(kind.start)
    kind.announce(replica)
    announced_s = time.monotonic()
    async with asyncio.timeout(ARRIVAL_LIMIT_S):
        while True:
            if await asyncio.to_thread(calls, replica, method):
                return time.monotonic() - announced_s
            await asyncio.sleep(POLL_INTERVAL_S)


def _counts(kind: Replicas, method: str) -> list[float]:
    return [calls(replica, method) for replica in kind.listed]


def _batches(documents: Sequence[Document]) -> Iterator[Sequence[Document]]:
    return (
        documents[start : start + DOCUMENTS_AT_ONCE]
        for start in range(0, len(documents), DOCUMENTS_AT_ONCE)
    )


def tables(outages: Outages) -> list[Table]:
    """Failures by phase, and how calls spread and arrive."""
    phases = Table(
        f"POST /query in {QUERY_CLIENTS} closed loops while /index runs",
        (
            "phase",
            "questions",
            "failed",
            "without dense",
            "without rerank",
            "p50 ms",
            "slowest ms",
            "/index",
            "failed",
        ),
        [
            (
                phase.name,
                str(len(phase.queries)),
                str(phase.failed()),
                str(phase.degraded("dense")),
                str(phase.degraded("rerank")),
                number(phase.latency_ms(50)),
                number(phase.latency_ms(100)),
                str(len(phase.indexing)),
                str(phase.index_failed()),
            )
            for phase in outages.phases
        ],
    )
    replicas = Table(
        "Calls of two replicas in the first phase, and the way to a third",
        ("", "calls", "off the even share", "s from DNS to the first call"),
        [
            (
                name,
                " + ".join(f"{count:.0f}" for count in counts),
                f"{imbalance(counts):.1%}",
                number(outages.arrival_s[name]),
            )
            for name, counts in outages.calls.items()
        ],
    )
    return [phases, replicas]


def targets(outages: Outages) -> list[Target]:
    """Nobody notices."""
    phases = outages.phases
    return [
        Target("failed /query", sum(phase.failed() for phase in phases), 0, at_most=True),
        Target("failed /index", sum(phase.index_failed() for phase in phases), 0, at_most=True),
        Target(
            "answers without the embedder",
            sum(phase.degraded("dense") for phase in phases),
            0,
            at_most=True,
        ),
        *(
            Target(f"calls of the {name} off the even share", imbalance(counts), 0.1, at_most=True)
            for name, counts in outages.calls.items()
        ),
        *(
            Target(f"s until a new {name} is called", arrival_s, 90.0, at_most=True)
            for name, arrival_s in outages.arrival_s.items()
        ),
    ]


def figures(outages: Outages) -> dict[str, Any]:
    """What JSON keeps."""
    return {
        "phases": [
            {
                "name": phase.name,
                "statuses": sorted(reply.status for reply in phase.queries),
                "latencies_ms": [round(reply.latency_s * 1000, 1) for reply in phase.queries],
                "index_statuses": sorted(reply.status for reply in phase.indexing),
                "without_dense": phase.degraded("dense"),
                "without_rerank": phase.degraded("rerank"),
            }
            for phase in outages.phases
        ],
        "calls": outages.calls,
        "arrival_s": outages.arrival_s,
    }
