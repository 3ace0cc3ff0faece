"""Whether a worker's memory grows: embedder and reranker under texts of all lengths at once.

Random pieces of the Rust book, in calls of random size; the processes' resident memory is read
each second. What is compared are medians of parts of the run: at any one moment it depends on
the batch that is being computed.
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
from bench.processes import rss_mib
from bench.report import Report, Table, Target, number
from bench.worker import Worker
from runtime.channel import open_channel
from runtime.errors import Reason, ServiceError
from runtime.telemetry import Tracing

EMBEDDER: Final = "rag.embedder.v1.EmbedderService"
RERANKER: Final = "rag.reranker.v1.RerankerService"
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
# Of the run: how much of its beginning is warm-up, and how many parts the table shows.
WARM_UP: Final = 0.1
PARTS: Final = 5
REFUSED: Final = frozenset({Reason.QUEUE_FULL, Reason.DEADLINE_EXCEEDED})


@dataclass(slots=True)
class Watched:
    """A worker under load. rss_mib: of each moment that was looked at, in order."""

    worker: Worker
    ready_mib: float
    rss_mib: list[float] = field(default_factory=list)
    calls: int = 0
    refused: int = 0

    @property
    def warm_mib(self) -> float:
        """The median of the part that follows the warm-up."""
        return self.parts_mib()[0]

    def parts_mib(self) -> list[float]:
        """Medians of equal parts of what followed the warm-up."""
        return medians(self.rss_mib[round(len(self.rss_mib) * WARM_UP) :], PARTS)


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
        uvloop.run(_load(watched, words, questions, minutes * 60))
    return _report(watched, minutes)


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
    """Sends one call after another; a refusal is counted, any other error ends the run."""
    while time.monotonic() < end_s:
        watched.calls += 1
        try:
            await call(request(), timeout=TIMEOUT_S)
        except ServiceError as error:
            if error.reason not in REFUSED:
                raise
            watched.refused += 1


async def _watch(watched: dict[str, Watched], end_s: float) -> None:
    while time.monotonic() < end_s:
        await asyncio.sleep(SAMPLE_INTERVAL_S)
        for one in watched.values():
            one.rss_mib.append(rss_mib(one.worker.pid))


def _report(watched: dict[str, Watched], minutes: float) -> Report:
    table = Table(
        f"RSS over {number(minutes)} minutes of mixed lengths, MiB: medians of each fifth of the "
        f"time after the first {WARM_UP:.0%}",
        ("worker", "ready", *(f"part {part + 1}" for part in range(PARTS)), "at most", "calls"),
        [
            (
                name,
                number(one.ready_mib),
                *(number(part) for part in one.parts_mib()),
                number(max(one.rss_mib)),
                f"{one.calls:,}",
            )
            for name, one in watched.items()
        ],
    )
    targets = [
        Target(
            f"RSS of the {name} at the end over that after warm-up",
            one.parts_mib()[-1] / one.warm_mib,
            1.15,
            at_most=True,
        )
        for name, one in watched.items()
    ]
    figures = {
        name: {
            "model": one.worker.description,
            "ready_mib": one.ready_mib,
            "rss_mib": [round(value, 1) for value in one.rss_mib],
            "calls": one.calls,
            "refused": one.refused,
        }
        for name, one in watched.items()
    }
    return Report({"minutes": minutes} | figures, [table], targets)
