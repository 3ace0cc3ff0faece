"""How fast questions are answered, beside the least that such a gateway can cost.

Every round runs every case once, at 1 and at 16 clients, so that whatever else the machine
does falls on all of them alike. Percentiles are over the answers of all rounds; CPU per
request and its ratio to the floor are medians of the rounds.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import uvloop

from bench import floor, system
from bench.api import connected
from bench.datasets import rust_book, rust_quiz
from bench.load import Sample, closed_loop, post
from bench.options import Options
from bench.processes import CpuMeter
from bench.report import Report, Table, Target, number
from bench.stats import percentile

CLIENTS: Final = (1, 16)
ROUNDS: Final = 3
FAST_S: Final = 4.0
# Cases that run models take tenths of a second: long enough for some dozens at one client.
SLOW_S: Final = 10.0
# Quiz questions without a listing; those with one are programs rather than questions.
LONGEST_QUESTION: Final = 200
FLOOR: Final = "floor: Starlette + one grpc.aio echo"
WORKERS: Final = ("embedder", "reranker", "generator")
# Of a question longer than the model reads: nothing was missing.
HARMLESS: Final = frozenset({"query_truncated"})
CACHED_SEARCH: Final = "/search, no rerank, cached"


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of request."""

    name: str
    address: tuple[str, int]
    requests: Iterator[bytes]
    seconds: float
    pids: dict[str, int]


@dataclass(slots=True)
class Outcome:
    """What one case gave at one number of clients. cpu_ms: per request, one entry a round."""

    sample: Sample = field(default_factory=Sample)
    cpu_ms: dict[str, list[float]] = field(default_factory=dict)

    def add(self, sample: Sample, cpu_s: dict[str, float]) -> None:
        """Takes in one round."""
        self.sample.add(sample)
        for name, spent_s in cpu_s.items():
            per_request_ms = spent_s / len(sample.replies) * 1000
            self.cpu_ms.setdefault(name, []).append(per_request_ms)


Outcomes = dict[tuple[str, int], Outcome]


def run(options: Options) -> Report:
    """Starts the system and the floor, indexes the Rust book, asks."""
    quiz = rust_quiz(options.data).questions
    questions = [one.text for one in quiz if len(one.text) <= LONGEST_QUESTION]
    with system.running() as running, floor.running() as bare:
        uvloop.run(_prepare(running.url, options, questions))
        cases = _cases(running, bare, questions)
        outcomes: Outcomes = {(case.name, n): Outcome() for case in cases for n in CLIENTS}
        for _ in range(options.rounds(ROUNDS)):
            for case, clients in itertools.product(cases, CLIENTS):
                meter = CpuMeter(case.pids | {"client": os.getpid()})
                load = closed_loop(
                    case.address, case.requests, clients, options.seconds(case.seconds)
                )
                outcomes[case.name, clients].add(uvloop.run(load), meter.spent_s())
    return _report(outcomes)


async def _prepare(url: str, options: Options, questions: list[str]) -> None:
    """Fills the store, and the cache with every question."""
    async with connected(url) as api:
        await api.index(rust_book(options.data), chunk_size=512, overlap=50)
        for question in questions:
            await api.search(query=question, rerank=False)


def _cases(running: system.System, bare: floor.Floor, questions: list[str]) -> list[Case]:
    serial = itertools.count()
    address = running.address

    def cached(path: str, **rest: Any) -> Iterator[bytes]:
        return itertools.cycle([post(address, path, {"query": q} | rest) for q in questions])

    def fresh(path: str, **rest: Any) -> Iterator[bytes]:
        # A number that was never asked before makes another text of it, as long as the last.
        for question in itertools.cycle(questions):
            yield post(address, path, {"query": f"{question} ({next(serial):06d})"} | rest)

    echo = itertools.cycle(
        [post(bare.address, "/echo", {"query": q, "rerank": False}) for q in questions]
    )
    return [
        Case(FLOOR, bare.address, echo, FAST_S, bare.pids),
        Case(CACHED_SEARCH, address, cached("/search", rerank=False), FAST_S, running.pids),
        Case(
            "/search, no rerank, not cached",
            address,
            fresh("/search", rerank=False),
            FAST_S,
            running.pids,
        ),
        Case("/search, cached", address, cached("/search"), SLOW_S, running.pids),
        Case("/search, not cached", address, fresh("/search"), SLOW_S, running.pids),
        Case("/query, cached", address, cached("/query"), SLOW_S, running.pids),
        Case("/query, not cached", address, fresh("/query"), SLOW_S, running.pids),
    ]


def _report(outcomes: Outcomes) -> Report:
    rows = [_row(name, clients, outcome) for (name, clients), outcome in outcomes.items()]
    for row in rows:
        base = outcomes[FLOOR, row["clients"]].cpu_ms["floor"]
        mine = outcomes[row["case"], row["clients"]].cpu_ms
        pairs = zip(mine.get("gateway", base), base, strict=True)
        row["gateway_cpu_over_floor"] = statistics.median(ours / theirs for ours, theirs in pairs)
    own = [row for row in rows if row["own_p50_ms"] is not None]
    tables = [
        Table(
            "Latency, seen by the client",
            ("request", "clients", "answers", "p50 ms", "p99 ms", "requests/s", "degraded",
             "refused"),
            [_latency_cells(row) for row in rows],
        ),
        Table(
            "CPU per request, ms (median of the rounds)",
            ("request", "clients", "gateway or floor", "store or echo", "workers",
             "gateway / floor"),
            [_cpu_cells(row) for row in rows],
        ),
        Table(
            "Time of a request that is neither model nor store, ms",
            ("request", "clients", "in the gateway, p50", "p99", "between client and gateway, p50"),
            [_own_cells(row) for row in own],
        ),
    ]  # fmt: skip
    return Report({"rows": rows}, tables, _targets(rows))


def _row(name: str, clients: int, outcome: Outcome) -> dict[str, Any]:
    """Everything about one case, for the tables and for the results file."""
    sample = outcome.sample
    answered = [reply for reply in sample.replies if reply.status == 200]
    timed = [] if name == FLOOR else [(reply, json.loads(reply.body)) for reply in answered]
    own_ms = [body["latency_ms"] - sum(body["timings_ms"].values()) for _, body in timed]
    way_ms = [reply.latency_s * 1000 - body["latency_ms"] for reply, body in timed]
    latencies_ms = [reply.latency_s * 1000 for reply in answered]
    return {
        "case": name,
        "clients": clients,
        "answers": len(answered),
        "refused": len(sample.replies) - len(answered),
        "degraded": sum(bool(set(body["degraded"]) - HARMLESS) for _, body in timed),
        "cache_hits": sum(body["cache_hit"] for _, body in timed),
        "p50_ms": percentile(latencies_ms, 50),
        "p99_ms": percentile(latencies_ms, 99),
        "requests_per_s": len(answered) / sample.duration_s,
        "own_p50_ms": percentile(own_ms, 50) if own_ms else None,
        "own_p99_ms": percentile(own_ms, 99) if own_ms else None,
        "way_p50_ms": percentile(way_ms, 50) if way_ms else None,
        "cpu_ms": {key: statistics.median(values) for key, values in outcome.cpu_ms.items()},
    }


def _targets(rows: list[dict[str, Any]]) -> list[Target]:
    of = {(row["case"], row["clients"]): row for row in rows}
    cpu = [
        Target(
            f"gateway CPU of a cached /search over the floor's at {clients} client(s)",
            of[CACHED_SEARCH, clients]["gateway_cpu_over_floor"],
            3.0,
            at_most=True,
        )
        for clients in CLIENTS
    ]
    own = of["/query, cached", 1]["own_p50_ms"]
    claim = Target("p50 ms of a /query that is neither model nor store", own, 1.0, at_most=True)
    return [*cpu, claim]


def _latency_cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["case"],
        str(row["clients"]),
        str(row["answers"]),
        number(row["p50_ms"]),
        number(row["p99_ms"]),
        number(row["requests_per_s"]),
        f"{row['degraded'] / row['answers']:.0%}",
        str(row["refused"]),
    )


def _cpu_cells(row: dict[str, Any]) -> tuple[str, ...]:
    cpu_ms = row["cpu_ms"]
    workers = sum(cpu_ms.get(name, 0.0) for name in WORKERS)
    return (
        row["case"],
        str(row["clients"]),
        number(cpu_ms.get("gateway", cpu_ms.get("floor", 0.0))),
        number(cpu_ms.get("store", cpu_ms.get("echo", 0.0))),
        number(workers),
        number(row["gateway_cpu_over_floor"]),
    )


def _own_cells(row: dict[str, Any]) -> tuple[str, ...]:
    return (
        row["case"],
        str(row["clients"]),
        number(row["own_p50_ms"]),
        number(row["own_p99_ms"]),
        number(row["way_p50_ms"]),
    )
