"""What becomes of calls when more come than a worker can answer.

An open loop: calls arrive as many independent users make them, whether or not earlier ones
were answered. The rates are multiples of the capacity, which every round measures first: the best
of several closed loops of the same calls, each as long as any other load. Rounds run every rate
once; rates per second and ratios to the round's own capacity are medians of the rounds, percentiles
are over the calls of all rounds.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench import client, prepared, worker
from bench.calls import OK, REFUSED, Call, Load, Outcome, Window, good
from bench.options import Options
from bench.passages import passages
from bench.processes import CpuMeter
from bench.report import Report, Table, Target, number
from bench.schedule import Closed, Poisson
from bench.scrape import Metrics, scrape
from bench.stats import percentile

MULTIPLES: Final = (0.5, 1.0, 1.5, 2.0, 3.0)
ROUNDS: Final = 2
# The least multiple that is an overload even if the capacity was measured a little low.
OVERLOADED: Final = 1.5
# What the batcher counts, and what is refused before it: more calls than MAX_CONCURRENT_RPCS.
CAUSES: Final = ("queue_full", "too_late", "expired", "cancelled")
TOO_MANY: Final = "too_many_calls"
EXPIRED: Final = "DEADLINE_EXCEEDED"
# Less than one step of the kernel's clock in a second was not measured.
LEAST_CORES: Final = 0.01


class TooBusy(Exception):
    """The machine has no time for the worker: there is no capacity to take multiples of."""


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of call.

    deadline_s: of each call; the queue has settled after as long.
    window_s: how long is counted after that.
    in_flight: numbers of calls in flight that are tried for the capacity.
    """

    name: str
    module: str
    service: str
    method: str
    requests: tuple[bytes, ...]
    deadline_s: float
    window_s: float
    in_flight: tuple[int, ...]

    def load(self, schedule: Closed | Poisson) -> Load:
        """A load of these calls."""
        return Load(
            self.method, self.requests, schedule, self.window.end_s, timeout_s=self.deadline_s
        )

    @property
    def window(self) -> Window:
        """What is counted of a load."""
        return Window(self.deadline_s, self.deadline_s + self.window_s)


@dataclass(frozen=True, slots=True)
class Piece:
    """One load: what the client saw, what the worker refused or dropped by cause, CPU used.

    client_cores, worker_cores: CPU seconds a second. capacity_per_s: of its round.
    """

    outcome: Outcome
    shed: dict[str, float]
    client_cores: float
    worker_cores: float
    capacity_per_s: float


def parts(options: Options) -> tuple[Part, ...]:
    """Embedding one text, and reranking 30 passages."""
    asked = prepared.questions(options.data, 1000)
    return (
        Part(
            "embedding one text",
            "embedder_worker",
            prepared.EMBEDDER,
            prepared.EMBED_TEXTS,
            prepared.mixed_calls(asked, prepared.short_passages(options.data)),
            # As long as a person waits for what a search box finds; 200 times the model's time.
            deadline_s=1.0,
            window_s=options.seconds(6.0),
            in_flight=(128,) if options.quick else (64, 128, 224),
        ),
        Part(
            "reranking 30 passages",
            "reranker_worker",
            prepared.RERANKER,
            prepared.SCORE_PASSAGES,
            prepared.score_calls(asked, passages(options.data, 3000), 30),
            # RERANK_TIMEOUT_SECONDS: then the gateway answers without.
            deadline_s=2.0,
            window_s=options.seconds(9.0),
            in_flight=(4,) if options.quick else (4, 6),
        ),
    )


def run(options: Options) -> Report:
    """Overloads an embedder, then a reranker.

    Raises TooBusy when neither had a capacity; when one has none, the other is reported.
    """
    figures, busy = [], []
    for part in parts(options):
        try:
            figures.append(_measure(part, options.rounds(ROUNDS)))
        except TooBusy as error:
            print(f"bench: {error}", file=sys.stderr)
            busy.append((part.name, str(error)))
    if not figures:
        raise TooBusy("; ".join(reason for _, reason in busy))
    tables = [table for part in figures for table in _tables(part)]
    if busy:
        tables.append(Table("Not measured", ("", "because"), list(busy)))
    held = [target for part in figures for target in targets(part)]
    return Report({"parts": figures}, tables, held)


def _measure(part: Part, rounds: int) -> dict[str, Any]:
    with (
        worker.running(part.module) as running,
        client.running(running.target, part.service) as send,
    ):

        def piece(schedule: Closed | Poisson, capacity: float) -> Piece:
            meter, before = CpuMeter({"worker": running.pid}), scrape(running.metrics_url)
            outcome = send(part.load(schedule))
            spent_s, after = meter.spent_s()["worker"], scrape(running.metrics_url)
            return Piece(
                outcome,
                shed(before, after),
                outcome.cpu_s / outcome.duration_s,
                spent_s / outcome.duration_s,
                capacity,
            )

        closed: list[dict[int, float]] = []
        pieces: dict[float, list[Piece]] = {multiple: [] for multiple in MULTIPLES}
        for turn in range(rounds):
            loops = {n: send(part.load(Closed(n))).calls for n in part.in_flight}
            closed.append({n: goodput(part, calls) for n, calls in loops.items()})
            capacity = max(closed[-1].values())
            if capacity == 0:
                raise TooBusy(f"{part.name}: nothing was answered within {part.deadline_s:g} s")
            for multiple in MULTIPLES:
                seed = round(multiple * 10) + 1000 * turn
                pieces[multiple].append(piece(Poisson(multiple * capacity, seed), capacity))
    rows = [row(part, multiple, some) for multiple, some in pieces.items()]
    return {
        "name": part.name,
        "model": running.description,
        "deadline_s": part.deadline_s,
        "capacity_per_s": statistics.median(max(each.values()) for each in closed),
        "closed_loop_per_s": closed,
        "peak_over_capacity": max(one["goodput_over_capacity"] for one in rows),
        "client_nice": pieces[MULTIPLES[0]][0].outcome.nice,
        "rows": rows,
    }


def goodput(part: Part, calls: Sequence[Call]) -> float:
    """Answers inside their deadline, a second."""
    return part.window.rate_done(calls, lambda call: good(call, part.deadline_s))


def shed(before: Metrics, after: Metrics) -> dict[str, float]:
    """Calls that the worker refused or dropped between two scrapes, by cause."""
    name = "rag_requests_shed_total"
    counts = {
        cause: after.value(name, cause=cause) - before.value(name, cause=cause) for cause in CAUSES
    }
    name, code = "rag_rpcs_total", REFUSED
    refused = after.value(name, code=code) - before.value(name, code=code)
    return counts | {TOO_MANY: refused - counts["queue_full"] - counts["too_late"]}


def row(part: Part, multiple: float, pieces: Sequence[Piece]) -> dict[str, Any]:
    """Everything about one rate: calls per second by outcome, and how long they took."""
    window, cores = part.window, os.cpu_count() or 1
    each = [piece.outcome.calls for piece in pieces]
    due = [call for calls in each for call in window.due(calls)]
    answered = [call.latency_s * 1000 for call in due if call.code == OK]
    refused = [call for call in due if call.code == REFUSED]
    refused_ms = [call.latency_s * 1000 for call in refused]
    late_ms = [call.late_s * 1000 for call in due]
    retry_s = [call.retry_after_s for call in refused if call.retry_after_s is not None]

    def share(wanted: int) -> float:
        return wanted / len(due) if due else 0.0

    good_calls = sum(good(call, part.deadline_s) for call in due)
    expired = sum(call.code == EXPIRED for call in due)
    return {
        "multiple": multiple,
        "offered_per_s": multiple * statistics.median(piece.capacity_per_s for piece in pieces),
        "calls": len(due),
        "goodput_per_s": statistics.median(goodput(part, calls) for calls in each),
        "goodput_over_capacity": statistics.median(
            goodput(part, piece.outcome.calls) / piece.capacity_per_s for piece in pieces
        ),
        "good_share": share(good_calls),
        "refused_share": share(len(refused)),
        # Told nothing before the deadline, or answered after it.
        "late_share": share(expired + len(answered) - good_calls),
        "failed_share": share(len(due) - len(answered) - len(refused) - expired),
        "answered_ms": _percentiles(answered),
        "refused_ms": _percentiles(refused_ms),
        "retry_after_p50_s": percentile(retry_s, 50) if retry_s else None,
        "client_late_p99_ms": max(0.0, percentile(late_ms, 99)) if late_ms else 0.0,
        "client_cpu_share": statistics.median(piece.client_cores for piece in pieces) / cores,
        "worker_cpu_share": statistics.median(piece.worker_cores for piece in pieces) / cores,
        "goodput_per_cpu_s": statistics.median(
            goodput(part, piece.outcome.calls) / max(piece.worker_cores, LEAST_CORES)
            for piece in pieces
        ),
        "shed": {
            cause: sum(piece.shed[cause] for piece in pieces) for cause in (*CAUSES, TOO_MANY)
        },
    }


def _percentiles(values_ms: Sequence[float]) -> dict[str, float] | None:
    if not values_ms:
        return None
    return {f"p{percent}": percentile(values_ms, percent) for percent in (50, 95, 99)}


def _tables(part: dict[str, Any]) -> Iterator[Table]:
    name, rows = part["name"], part["rows"]
    yield Table(
        f"Overload, {name}: deadline {part['deadline_s']:g} s, "
        f"capacity {number(part['capacity_per_s'])} calls/s (median of the rounds), "
        f"peak of the goodput {part['peak_over_capacity']:.2f} of it",
        ("offered / capacity", "calls/s offered", "goodput/s", "goodput / capacity", "in time",
         "refused", "late", "failed"),
        [
            (
                f"{one['multiple']:g}",
                number(one["offered_per_s"]),
                number(one["goodput_per_s"]),
                f"{one['goodput_over_capacity']:.2f}",
                *(f"{one[key]:.1%}" for key in
                  ("good_share", "refused_share", "late_share", "failed_share")),
            )
            for one in rows
        ],
    )  # fmt: skip
    yield Table(
        f"How long it took, {name}, ms",
        ("offered / capacity", "answered p50", "p95", "p99", "refused p50", "p95", "p99",
         "retry after, s", "client late p99"),
        [
            (
                f"{one['multiple']:g}",
                *_cells(one["answered_ms"]),
                *_cells(one["refused_ms"]),
                number(one["retry_after_p50_s"]) if one["retry_after_p50_s"] else "",
                number(one["client_late_p99_ms"]),
            )
            for one in rows
        ],
    )  # fmt: skip
    yield Table(
        f"Refused and dropped by cause (calls of all rounds), and shares of all processors, {name}",
        ("offered / capacity", *(cause.replace("_", " ") for cause in (*CAUSES, TOO_MANY)),
         "CPU: worker", "client", "goodput per CPU s of the worker"),
        [
            (
                f"{one['multiple']:g}",
                *(f"{one['shed'][cause]:.0f}" for cause in (*CAUSES, TOO_MANY)),
                f"{one['worker_cpu_share']:.0%}",
                f"{one['client_cpu_share']:.0%}",
                number(one["goodput_per_cpu_s"]),
            )
            for one in rows
        ],
    )  # fmt: skip


def _cells(percentiles: dict[str, float] | None) -> tuple[str, ...]:
    return tuple(map(number, percentiles.values())) if percentiles else ("", "", "")


def targets(part: dict[str, Any]) -> Iterator[Target]:
    """By the worst of the rows that are an overload."""
    name = part["name"]
    over = [one for one in part["rows"] if one["multiple"] >= OVERLOADED]
    # The capacity is a goodput too: that of the best closed loop.
    peak = max(1.0, part["peak_over_capacity"])
    yield Target(
        f"{name}: least goodput from {OVERLOADED:g} times capacity on, over the peak",
        min(one["goodput_over_capacity"] for one in over) / peak,
        0.9,
        at_most=False,
    )
    refused_ms = [one["refused_ms"] for one in over if one["refused_ms"] is not None]
    for key, limit_ms in (("p50", 5.0), ("p99", 25.0)):
        if refused_ms:
            yield Target(
                f"{name}: worst {key} ms of a refusal from {OVERLOADED:g} times capacity on",
                max(each[key] for each in refused_ms),
                limit_ms,
                at_most=True,
            )
