"""What a bulk load costs those who ask, and what they cost it: at the worker, and through REST.

Percentiles are over the calls of all rounds; what bulk keeps is the median of the rounds.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from bench import gateway_interference, worker_interference
from bench.calls import OK, Call
from bench.latency import HARMLESS
from bench.load import Reply
from bench.options import Options
from bench.report import Report, Table, Target, number
from bench.stats import percentile
from bench.worker_interference import QUESTIONS_PER_S
from encoders.limits import Limits
from encoders.requests import MODEL_MS, QUEUE_MS

NOT_MODEL_MS: Final = 0.7
MOST_SLOWDOWN: Final = 3.0
# BULK_QUANTUM_SECONDS: nothing can preempt the batch that a question finds running.
QUANTUM_MS: Final = Limits().bulk_quantum_s * 1000
LEAST_KEPT: Final = 0.8
CLOSED: Final = "one after another"
IDLE: Final = f"{QUESTIONS_PER_S:g} a second"
LOADED: Final = f"{QUESTIONS_PER_S:g} a second, bulk beside"
BARE: Final = "a bare grpc.aio server that computes as long"


def run(options: Options) -> Report:
    """Measures the worker alone, then the whole system."""
    rounds = worker_interference.measure(options)
    whole = gateway_interference.measure(options)
    rows = [
        call_row(name, [call for one in rounds for call in read(one)])
        for name, read in _READ.items()
    ]
    replies = [
        reply_row(kind, when, [reply for one in whole for reply in read(one)[kind]])
        for kind, *_ in gateway_interference.KINDS
        for when, read in _WHEN.items()
    ]
    bulk = [kept_row("EmbedTexts of 32 texts, 4 in flight, texts/s", rounds),
            kept_row("POST /index, chunks/s", whole)]  # fmt: skip
    figures = {
        "calls": rows,
        "replies": replies,
        "bulk": bulk,
        "rounds": [asdict(one) for one in rounds],
    }
    return Report(figures, list(_tables(rows, replies, bulk)), list(targets(rows, bulk)))


_READ: Final[dict[str, Callable[[worker_interference.Round], Sequence[Call]]]] = {
    CLOSED: lambda one: one.closed,
    IDLE: lambda one: one.idle,
    LOADED: lambda one: one.loaded,
    f"{BARE}, {CLOSED}": lambda one: one.bare_closed,
    f"{BARE}, {IDLE}": lambda one: one.bare_idle,
}
_WHEN: Final[dict[str, Callable[[gateway_interference.Round], dict[str, list[Reply]]]]] = {
    "idle": lambda one: one.idle,
    "while indexing": lambda one: one.loaded,
}


def call_row(name: str, calls: Sequence[Call]) -> dict[str, Any]:
    """How long single questions took: in all, in the model, waiting for it, and all but the model.

    "In all" is counted from the moment a call was due, so that a client that is late hides
    nothing; the rest is of the round trip, from the moment it was sent.
    Raises ValueError when an answer does not say what the model took.
    """
    answered = [call for call in calls if call.code == OK]
    took_ms = [call.took_s * 1000 for call in answered]
    late_ms = [max(0.0, call.late_s) * 1000 for call in answered]
    model_ms = [told(call.model_ms) for call in answered]
    queue_ms = [told(call.queue_ms) for call in answered]
    other_ms = [took - model for took, model in zip(took_ms, model_ms, strict=True)]
    return {
        "case": name,
        "calls": len(answered),
        "failed": len(calls) - len(answered),
        "latency_ms": _percentiles([call.latency_s * 1000 for call in answered]),
        "client_late_ms": _percentiles(late_ms),
        "model_ms": _percentiles(model_ms),
        "queue_ms": _percentiles(queue_ms),
        "other_ms": _percentiles(other_ms),
        "other_share": 1 - sum(model_ms) / sum(took_ms) if took_ms else 0.0,
    }


def told(value_ms: float | None) -> float:
    """What a worker tells of every answer. Raises ValueError when it did not."""
    if value_ms is None:
        raise ValueError(f"an answer without {MODEL_MS} or {QUEUE_MS}")
    return value_ms


def reply_row(kind: str, when: str, replies: Sequence[Reply]) -> dict[str, Any]:
    """How long requests took, and what was left out of the answers."""
    answered = [reply for reply in replies if reply.status == 200]
    without = Counter(
        part for reply in answered for part in set(json.loads(reply.body)["degraded"]) - HARMLESS
    )
    return {
        "kind": kind,
        "when": when,
        "answers": len(answered),
        "refused": len(replies) - len(answered),
        "took_ms": _percentiles([reply.latency_s * 1000 for reply in answered]),
        "degraded": dict(without),
    }


def kept_row(
    name: str, rounds: Sequence[worker_interference.Round] | Sequence[gateway_interference.Round]
) -> dict[str, Any]:
    """What bulk work keeps of its own speed; medians of the rounds."""
    return {
        "name": name,
        "alone_per_s": statistics.median(one.alone_per_s for one in rounds),
        "shared_per_s": statistics.median(one.shared_per_s for one in rounds),
        "kept": statistics.median(one.shared_per_s / one.alone_per_s for one in rounds),
    }


def _percentiles(values_ms: Sequence[float]) -> dict[str, float]:
    """Empty without values: what was not answered took no time."""
    return {f"p{percent}": percentile(values_ms, percent) for percent in (50, 95, 99) if values_ms}


def targets(rows: Sequence[dict[str, Any]], bulk: Sequence[dict[str, Any]]) -> Iterator[Target]:
    """What was to be reached, by the rows of CLOSED, IDLE and LOADED, and of bulk."""
    of = {row["case"]: row for row in rows}
    yield Target(
        "p50 ms of a question's embedding that is not the model, idle",
        of[CLOSED]["other_ms"]["p50"],
        NOT_MODEL_MS,
        at_most=True,
    )
    yield Target(
        "p95 ms of a question's embedding beside bulk",
        of[LOADED]["latency_ms"]["p95"],
        MOST_SLOWDOWN * of[IDLE]["latency_ms"]["p95"] + QUANTUM_MS,
        at_most=True,
    )
    yield Target(
        "share of its own speed that bulk keeps beside questions",
        bulk[0]["kept"],
        LEAST_KEPT,
        at_most=False,
    )


def _tables(
    rows: Sequence[dict[str, Any]],
    replies: Sequence[dict[str, Any]],
    bulk: Sequence[dict[str, Any]],
) -> Iterator[Table]:
    yield Table(
        "One question's embedding through gRPC, ms",
        ("questions", "answers", "failed", "p50", "p95", "p99", "model p50", "waiting p50",
         "waiting p95", "not the model p50", "not the model p99", "share", "client late p99"),
        [
            (
                row["case"],
                str(row["calls"]),
                str(row["failed"]),
                *_cells(row["latency_ms"], "p50", "p95", "p99"),
                *_cells(row["model_ms"], "p50"),
                *_cells(row["queue_ms"], "p50", "p95"),
                *_cells(row["other_ms"], "p50", "p99"),
                f"{row['other_share']:.0%}",
                *_cells(row["client_late_ms"], "p99"),
            )
            for row in rows
        ],
    )  # fmt: skip
    yield Table(
        "Questions through REST, one client, ms",
        ("request", "when", "answers", "p50", "p95", "p99", "refused", "degraded"),
        [
            (
                row["kind"],
                row["when"],
                str(row["answers"]),
                *_cells(row["took_ms"], "p50", "p95", "p99"),
                str(row["refused"]),
                ", ".join(f"{part}: {count}" for part, count in row["degraded"].items()) or "0",
            )
            for row in replies
        ],
    )  # fmt: skip
    yield Table(
        "What bulk keeps of its own speed (medians of the rounds)",
        ("bulk work", "alone", "with questions", "kept"),
        [
            (
                row["name"],
                number(row["alone_per_s"]),
                number(row["shared_per_s"]),
                f"{row['kept']:.0%}",
            )
            for row in bulk
        ],
    )


def _cells(percentiles: dict[str, float], *names: str) -> tuple[str, ...]:
    return tuple(number(percentiles[name]) if percentiles else "" for name in names)
