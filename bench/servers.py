"""Other projects' servers of the same model beside our embedder: `python -m bench servers`.

All run at once on one machine and take turns. Those that wait are stopped (SIGSTOP): some of
them poll, or spin, while nothing is asked of them.
"""

from __future__ import annotations

import contextlib
import signal
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import psutil

from bench import foreign, worker
from bench.apart import Apart, apart
from bench.contestants import MODEL
from bench.datasets import rust_quiz
from bench.embedding import over_grpc
from bench.embedding_client import Completed, Connect, Order, client
from bench.foreign import Recipe, Unavailable, signal_group
from bench.http_embedding import over_http
from bench.options import Options
from bench.passages import passages
from bench.processes import pss_mib
from bench.recipes import RECIPES
from bench.reference import Setting, sentence_transformer
from bench.report import Report, Table, Target, number
from bench.stats import percentile
from bench.throughput import token_lengths
from bench.turns import in_slices
from bench.vectors import Floats, largest_cosine_loss
from encoders.location import locate

TEXTS: Final = 480
QUICK_TEXTS: Final = 96
ROUNDS: Final = 3
QUERIES: Final = 60
QUICK_QUERIES: Final = 15
TOGETHER_S: Final = 4.0
WARMING: Final = ("Is Rust fast?", "What does a borrow checker check? " * 12) * 32


@dataclass(frozen=True, slots=True)
class Server:
    """One that runs, its client in another process, and what it did in its turns.

    pid: of the leader of its session. memory_mib: PSS of all its processes after each turn.
    """

    name: str
    pid: int
    start_s: float
    carry_out: Apart[Order, Completed]
    bulk: list[Completed] = field(default_factory=list)
    alone: list[Completed] = field(default_factory=list)
    together: list[Completed] = field(default_factory=list)
    memory_mib: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Row:
    """One server's figures, in the order of the table's columns."""

    texts_per_s: float
    p50_ms: float
    p99_ms: float
    loaded_p95_ms: float
    loaded_texts_per_s: float
    memory_mib: float
    start_s: float
    cosine_loss: float

    @classmethod
    def of(cls, server: Server, reference: Floats) -> Row:
        """reference: the vectors of all texts in fp32."""
        alone_ms = [1e3 * each for outcome in server.alone for each in outcome.latencies_s]
        loaded_ms = [1e3 * each for outcome in server.together for each in outcome.latencies_s]
        vectors = np.concatenate([outcome.vectors for outcome in server.bulk])
        return cls(
            statistics.median(outcome.texts / outcome.seconds for outcome in server.bulk),
            percentile(alone_ms, 50),
            percentile(alone_ms, 99),
            percentile(loaded_ms, 95),
            statistics.median(outcome.texts / outcome.seconds for outcome in server.together),
            max(server.memory_mib),
            server.start_s,
            largest_cosine_loss(vectors, reference),
        )


# What is compared, and whether less is better.
COLUMNS: Final = {
    "texts_per_s": ("texts/s", False),
    "p50_ms": ("one query, p50 ms", True),
    "p99_ms": ("p99 ms", True),
    "loaded_p95_ms": ("p95 ms under bulk load", True),
    "loaded_texts_per_s": ("texts/s meanwhile", False),
    "memory_mib": ("PSS MiB", True),
    "start_s": ("start s", True),
}


def run(options: Options) -> Report:
    """Starts all, asks each in turn."""
    model = locate(MODEL).folder
    texts = passages(options.data, QUICK_TEXTS if options.quick else TEXTS)
    asked = QUICK_QUERIES if options.quick else QUERIES
    queries = [question.text for question in rust_quiz(options.data).questions][:asked]
    with apart(partial(sentence_transformer, model, Setting("fp32", 32), "cpu")) as encode:
        reference = encode(texts).values
    left_out: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(worker.running("embedder_worker", embedding_model=MODEL))
        tokens = sum(token_lengths(texts, model, ours.target))
        name = f"embedder over gRPC: {ours.description.partition(', ')[2]}"
        connect = partial(over_grpc, ours.target)
        servers = [_server(stack, name, ours.pid, ours.start_s, connect)]
        for recipe in RECIPES:
            try:
                servers.append(_foreign(stack, recipe, model))
            except Unavailable as error:
                left_out[recipe.name] = str(error)
                print(f"bench: without {recipe.name}: {error}", file=sys.stderr)
        for part in in_slices(texts, options.rounds(ROUNDS)):
            _round(servers, part, queries, options.seconds(TOGETHER_S))
    rows = {server.name: Row.of(server, reference) for server in servers}
    return _report(rows, tokens / len(texts), left_out)


def _foreign(stack: contextlib.ExitStack, recipe: Recipe, model: Path) -> Server:
    server = stack.enter_context(foreign.running(recipe, model))
    connect = partial(over_http, server.address, recipe.path, "model")
    return _server(stack, recipe.name, server.pid, server.start_s, connect)


def _server(
    stack: contextlib.ExitStack, name: str, pid: int, start_s: float, connect: Connect
) -> Server:
    """Warm, and stopped until its turn; it goes on when the block ends, to end in good order."""
    server = Server(name, pid, start_s, stack.enter_context(apart(partial(client, connect))))
    server.carry_out(Order(WARMING, WARMING[:8]))
    stack.callback(signal_group, pid, signal.SIGCONT)
    signal_group(pid, signal.SIGSTOP)
    return server


def _round(
    servers: Sequence[Server], texts: Sequence[str], queries: Sequence[str], together_s: float
) -> None:
    """One turn of each at each kind of work."""
    for server in servers:
        with _going_on(server):
            server.bulk.append(server.carry_out(Order(texts=texts)))
    for server in servers:
        with _going_on(server):
            server.alone.append(server.carry_out(Order(queries=queries)))
    for server in servers:
        with _going_on(server):
            order = Order(texts, queries, together_s)
            server.together.append(server.carry_out(order))
            server.memory_mib.append(_memory_mib(server.pid))


@contextlib.contextmanager
def _going_on(server: Server) -> Iterator[None]:
    signal_group(server.pid, signal.SIGCONT)
    yield
    signal_group(server.pid, signal.SIGSTOP)


def _memory_mib(pid: int) -> float:
    """Of the process and all that it started."""
    children = psutil.Process(pid).children(recursive=True)
    return sum(pss_mib(each) for each in (pid, *(child.pid for child in children)))


def _report(rows: dict[str, Row], tokens_per_text: float, left_out: dict[str, str]) -> Report:
    """rows: ours first."""
    table = Table(
        f"One machine, {len(rows)} servers of all-MiniLM-L6-v2 in turns, "
        f"{tokens_per_text:.0f} tokens a text",
        (
            "",
            "texts/s",
            "tokens/s",
            *(title for title, _ in list(COLUMNS.values())[1:]),
            "1 - cosine",
        ),
        [
            (
                name,
                number(row.texts_per_s),
                number(row.texts_per_s * tokens_per_text),
                *(number(getattr(row, column)) for column in list(COLUMNS)[1:]),
                f"{row.cosine_loss:.6f}",
            )
            for name, row in rows.items()
        ],
    )
    tables = [table]
    if left_out:
        missing: list[tuple[str, ...]] = [
            (name, reason.splitlines()[-1][:200]) for name, reason in left_out.items()
        ]
        tables.append(Table("Could not be had here", ("", "because"), missing))
    places = places_of(rows)
    if places:
        tables.append(_places_table(places))
    figures = {
        "servers": {name: asdict(row) for name, row in rows.items()},
        "tokens_per_text": tokens_per_text,
        "left_out": left_out,
    }
    return Report(figures, tables, [place.target() for place in places])


@dataclass(frozen=True, slots=True)
class Place:
    """One column: ours, and the best of the others. less: is better."""

    title: str
    ours: float
    best: float
    whose: str
    less: bool

    def target(self) -> Target:
        """That nobody is better than we are."""
        name = f"{self.title}: ours over the best other's"
        return Target(name, self.ours / self.best, 1.0, at_most=self.less)


def places_of(rows: dict[str, Row]) -> list[Place]:
    """A place for each column, ours being the first row; none when there are no others."""
    ours, *others = rows
    if not others:
        return []
    places = []
    for column, (title, less) in COLUMNS.items():
        values = {name: getattr(row, column) for name, row in rows.items()}
        whose = (min if less else max)(others, key=values.__getitem__)
        places.append(Place(title, values[ours], values[whose], whose, less))
    return places


def _places_table(places: Sequence[Place]) -> Table:
    return Table(
        "Who is first",
        ("", "ours", "best of the others", "whose", "are we first"),
        [
            (
                place.title,
                number(place.ours),
                number(place.best),
                place.whose,
                "yes" if place.target().met else "no",
            )
            for place in places
        ],
    )
