"""What a second embedder is worth to `/index`: the same documents through two gateways.

One gateway knows one worker, the other both; they take turns. Each worker computes with one
thread, so that two share the work of two cores and not each other's. Three figures say three
things. Tokens a second by the clock: what the caller gains, which on a machine without further
cores for gateway, store and client is less than the second worker could give. Tokens per CPU
second of the workers: that neither wastes CPU when there are two. Calls of each: that both do
their share.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

import uvloop

from bench import worker
from bench.api import connected
from bench.cluster import calls
from bench.datasets import Document, rust_book
from bench.options import Options
from bench.processes import CpuMeter
from bench.report import Table, Target, number
from bench.scrape import scrape
from bench.worker import LOOPBACK, Worker

ROUNDS: Final = 3
# Of the book, in --quick: a ninth is some 40,000 tokens.
QUICK_SHARE: Final = 9
# Nobody listens there: a gateway indexes without reranker and generator.
NOBODY: Final = f"{LOOPBACK}:1"


@dataclass(slots=True)
class Measured:
    """What indexing through one gateway gave; an entry a round.

    calls: of EmbedTexts, of each worker over all rounds.
    """

    workers: Sequence[Worker]
    gateway: Worker
    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)

    def tokens_per_s(self) -> float:
        """By the clock; the median of the rounds."""
        return self._per(self.seconds)

    def tokens_per_cpu_s(self) -> float:
        """By the workers' CPU time; the median of the rounds."""
        return self._per(self.cpu_s)

    def _per(self, spent_s: Sequence[float]) -> float:
        return statistics.median(
            tokens / one_s for tokens, one_s in zip(self.tokens, spent_s, strict=True)
        )


def imbalance(counts: Sequence[float]) -> float:
    """The largest distance from the even share, as a part of it; 0: all the same.

    Raises ValueError when there is nothing to share.
    """
    if not sum(counts):
        raise ValueError("nothing was counted")
    even = statistics.fmean(counts)
    return max(abs(count - even) for count in counts) / even


def measure(options: Options) -> dict[str, Measured]:
    """Indexes the Rust book through either gateway, a part of it each round."""
    book = rust_book(options.data)
    rounds = options.rounds(ROUNDS)
    parts = [book[at :: QUICK_SHARE if options.quick else rounds] for at in range(rounds)]
    with _gateways() as ways:
        for part in parts:
            for way in ways.values():
                uvloop.run(_round(way, part))
    return ways


@contextmanager
def _gateways() -> Iterator[dict[str, Measured]]:
    with ExitStack() as stack:
        workers = [
            stack.enter_context(worker.running("embedder_worker", threads=1)) for _ in range(2)
        ]
        ways = {}
        for name, some in (("one worker", workers[:1]), ("two workers", workers)):
            gateway = worker.running(
                "gateway",
                server_host=LOOPBACK,
                server_port=0,
                data_dir="data",
                embedder_target=f"ipv4:{','.join(one.target for one in some)}",
                reranker_target=NOBODY,
                generator_target=NOBODY,
            )
            ways[name] = Measured(some, stack.enter_context(gateway), calls=[0.0] * len(some))
        yield ways


async def _round(way: Measured, documents: Sequence[Document]) -> None:
    before, calls_before = _tokens(way), _calls(way)
    cpu = CpuMeter({one.target: one.pid for one in way.workers})
    async with connected(f"http://{way.gateway.target}") as api:
        started_s = time.perf_counter()
        await api.index(documents)
        way.seconds.append(time.perf_counter() - started_s)
    way.cpu_s.append(sum(cpu.spent_s().values()))
    way.tokens.append(_tokens(way) - before)
    way.calls = [
        total + after - start
        for total, after, start in zip(way.calls, _calls(way), calls_before, strict=True)
    ]


def _tokens(way: Measured) -> float:
    """Tokens of texts, without padding, that the workers have computed."""
    return sum(
        scrape(one.metrics_url).value("rag_tokens_total", kind="text") for one in way.workers
    )


def _calls(way: Measured) -> list[float]:
    return [calls(one, "EmbedTexts") for one in way.workers]


def table(ways: dict[str, Measured]) -> Table:
    """One row each."""
    alone, *_ = ways.values()
    return Table(
        f"POST /index, workers of one thread each (medians of {len(alone.seconds)} rounds)",
        (
            "",
            "tokens/s",
            "of one worker's",
            "tokens per CPU s of the workers",
            "of one worker's",
            "calls",
            "off the even share",
        ),
        [
            (
                name,
                number(way.tokens_per_s()),
                number(way.tokens_per_s() / alone.tokens_per_s()),
                number(way.tokens_per_cpu_s()),
                number(way.tokens_per_cpu_s() / alone.tokens_per_cpu_s()),
                " + ".join(f"{count:.0f}" for count in way.calls),
                f"{imbalance(way.calls):.1%}",
            )
            for name, way in ways.items()
        ],
    )


def targets(ways: dict[str, Measured]) -> list[Target]:
    """Near-linear, and evenly spread."""
    alone, both = ways.values()
    return [
        Target(
            "tokens per CPU second of two workers over those of one (neither wastes CPU)",
            both.tokens_per_cpu_s() / alone.tokens_per_cpu_s(),
            0.9,
            at_most=False,
        ),
        Target(
            "calls of /index off the even share (both do theirs)",
            imbalance(both.calls),
            0.1,
            at_most=True,
        ),
    ]
