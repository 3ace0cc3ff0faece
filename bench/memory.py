"""Whether a worker's memory grows: embedder and reranker under texts of all lengths at once.

Random pieces of the Rust book, in calls of random size; the processes' resident memory is read
each second. The median of the run's last part is compared with what the worker held when it was
ready, model loaded and warm: at any one moment it depends on the batch that is being computed.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import uvloop
from rag.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from rag.reranker.v1 import reranker_pb2, reranker_pb2_grpc

from bench import worker
from bench.datasets import question_texts, rust_book
from bench.options import Options
from bench.prepared import EMBEDDER, RERANKER
from bench.processes import rss_mib
from bench.report import Report, Table, Target, number
from bench.scrape import scrape
from bench.worker import Worker
from runtime.channel import open_channel
from runtime.errors import Reason, ServiceError
from runtime.telemetry import Tracing

MINUTES: Final = 4.5
SEED: Final = 5
# 190 words of the book are about the 256 tokens that the models read.
LONGEST_WORDS: Final = 190
LARGEST_CALL: Final = 64
PASSAGES: Final = 30
BULK_CLIENTS: Final = 4
QUESTION_CLIENTS: Final = 2
RERANK_CLIENTS: Final = 2
TIMEOUT_S: Final = 120.0
SAMPLE_INTERVAL_S: Final = 1.0
# The parts of the run that the table shows.
PARTS: Final = 5
MOST_GROWTH: Final = 1.15
# The clients never ask for more than a worker queues: less than this was not a load.
LEAST_ANSWERED: Final = 0.95
REFUSED: Final = frozenset({Reason.QUEUE_FULL, Reason.DEADLINE_EXCEEDED})
# After an error that says nothing of when to try again.
PAUSE_S: Final = 0.05


@dataclass(slots=True)
class Watched:
    """A worker under load.

    ready_mib: its resident memory when it was ready, which is after its own warm-up.
    rss_mib: of each moment that was looked at, in order.
    refused: calls for which it had no room or no time; failed: with any other error.
    tokens: of texts, without padding, that it computed.
    """

    worker: Worker
    ready_mib: float
    rss_mib: list[float] = field(default_factory=list)
    calls: int = 0
    refused: int = 0
    failed: int = 0
    tokens: float = 0.0

    def parts_mib(self) -> list[float]:
        """Medians of equal parts of the run."""
        return medians(self.rss_mib, PARTS)

    def growth(self) -> float:
        """The last part's resident memory over that when it was ready."""
        return self.parts_mib()[-1] / self.ready_mib

    def answered_share(self) -> float:
        """Of the calls; 0 when there was none."""
        answered = self.calls - self.refused - self.failed
        return answered / self.calls if self.calls else 0.0


def run(options: Options) -> Report:
    """Loads both workers for `options.minutes`, by default for MINUTES."""
    minutes = options.minutes or options.seconds(MINUTES)
    words = " ".join(document.text for document in rust_book(options.data)).split()
    questions = question_texts(options.data)
    with worker.running("embedder_worker") as embedder, worker.running("reranker_worker") as other:
        watched = {
            "embedder": Watched(embedder, rss_mib(embedder.pid)),
            "reranker": Watched(other, rss_mib(other.pid)),
        }
        before = {name: _tokens(one) for name, one in watched.items()}
        uvloop.run(_load(watched, words, questions, minutes * 60))
        for name, one in watched.items():
            one.tokens = _tokens(one) - before[name]
    return _report(watched, minutes)


def _tokens(watched: Watched) -> float:
    """Tokens of texts that the worker has computed so far."""
    return scrape(watched.worker.metrics_url).value("rag_tokens_total", kind="text")


def pieces(words: Sequence[str], rng: random.Random) -> Iterator[str]:
    """Pieces of a text without end: every length of up to LONGEST_WORDS words is as likely."""
    while True:
        length = rng.randint(1, min(LONGEST_WORDS, len(words)))
        start = rng.randint(0, len(words) - length)
        yield " ".join(words[start : start + length])


def medians(values: Sequence[float], parts: int) -> list[float]:
    """The medians of equal parts of the values, in order. Raises ValueError for too few."""
    if len(values) < parts:
        raise ValueError(f"{len(values)} values make no {parts} parts")
    bounds = [len(values) * part // parts for part in range(parts + 1)]
    return [statistics.median(values[start:end]) for start, end in pairwise(bounds)]


async def _load(
    watched: dict[str, Watched], words: Sequence[str], questions: Sequence[str], duration_s: float
) -> None:
    end_s = time.monotonic() + duration_s
    embedder, reranker = watched["embedder"], watched["reranker"]
    rng = random.Random(SEED)
    texts = pieces(words, rng)
    async with (
        open_channel(embedder.worker.target, EMBEDDER, Tracing(None)) as to_embedder,
        open_channel(reranker.worker.target, RERANKER, Tracing(None)) as to_reranker,
    ):
        embed = embedder_pb2_grpc.EmbedderServiceStub(to_embedder).EmbedTexts
        score = reranker_pb2_grpc.RerankerServiceStub(to_reranker).ScorePassages

        def bulk() -> embedder_pb2.EmbedTextsRequest:
            count = rng.randint(1, LARGEST_CALL)
            return embedder_pb2.EmbedTextsRequest(
                texts=[next(texts) for _ in range(count)],
                input_type=embedder_pb2.INPUT_TYPE_PASSAGE,
                lane=embedder_pb2.LANE_BULK,
                truncate=True,
            )

        def question() -> embedder_pb2.EmbedTextsRequest:
            return embedder_pb2.EmbedTextsRequest(
                texts=[next(texts)],
                input_type=embedder_pb2.INPUT_TYPE_QUERY,
                lane=embedder_pb2.LANE_INTERACTIVE,
                truncate=True,
            )

        def rerank() -> reranker_pb2.ScorePassagesRequest:
            return reranker_pb2.ScorePassagesRequest(
                query=rng.choice(questions),
                passages=[next(texts) for _ in range(PASSAGES)],
                truncate=True,
            )

        async with asyncio.TaskGroup() as group:
            for _ in range(BULK_CLIENTS):
                group.create_task(_client(embedder, embed, bulk, end_s))
            for _ in range(QUESTION_CLIENTS):
                group.create_task(_client(embedder, embed, question, end_s))
            for _ in range(RERANK_CLIENTS):
                group.create_task(_client(reranker, score, rerank, end_s))
            group.create_task(_watch(watched, end_s))


async def _client(watched: Watched, call: Any, request: Any, end_s: float) -> None:
    """Sends one call after another, and counts those that were refused or failed."""
    while time.monotonic() < end_s:
        watched.calls += 1
        try:
            await call(request(), timeout=TIMEOUT_S)
        except ServiceError as error:
            if error.reason in REFUSED:
                watched.refused += 1
            else:
                watched.failed += 1
            await asyncio.sleep(error.retry_after_s or PAUSE_S)


async def _watch(watched: dict[str, Watched], end_s: float) -> None:
    while time.monotonic() < end_s:
        await asyncio.sleep(SAMPLE_INTERVAL_S)
        for one in watched.values():
            one.rss_mib.append(rss_mib(one.worker.pid))


def _report(watched: dict[str, Watched], minutes: float) -> Report:
    table = Table(
        f"RSS over {number(minutes)} minutes of mixed lengths, MiB: when ready, and medians of "
        "each fifth of the time",
        ("worker", "ready", *(f"part {part + 1}" for part in range(PARTS)), "last / ready",
         "at most", "calls", "refused", "failed", "tokens computed"),
        [
            (
                name,
                number(one.ready_mib),
                *(number(part) for part in one.parts_mib()),
                f"{one.growth():.2f}",
                number(max(one.rss_mib)),
                f"{one.calls:,}",
                f"{one.refused:,}",
                f"{one.failed:,}",
                number(one.tokens),
            )
            for name, one in watched.items()
        ],
    )  # fmt: skip
    figures = {
        name: {
            "model": one.worker.description,
            "ready_mib": one.ready_mib,
            "rss_mib": [round(value, 1) for value in one.rss_mib],
            "calls": one.calls,
            "refused": one.refused,
            "failed": one.failed,
            "tokens": one.tokens,
        }
        for name, one in watched.items()
    }
    made = [target for name, one in watched.items() for target in targets(name, one)]
    return Report({"minutes": minutes} | figures, [table], made)


def targets(name: str, watched: Watched) -> list[Target]:
    """That a worker does not grow, and that it worked meanwhile."""
    return [
        Target(
            f"RSS of the {name} in the last fifth over that when it was ready",
            watched.growth(),
            MOST_GROWTH,
            at_most=True,
        ),
        Target(
            f"share of the {name}'s calls that were answered",
            watched.answered_share(),
            LEAST_ANSWERED,
            at_most=False,
        ),
    ]
