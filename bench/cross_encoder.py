"""The reader as a reranker: a trained cross-encoder to hold the others against.

It reads question and passage together through all layers, and was trained to tell passages that
answer from those that do not. So a passage scores what its best span does against "nothing".
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from threading import Event
from typing import Final

import numpy as np
from prometheus_client import CollectorRegistry

from bench.flood import TIMEOUT_S
from bench.reference import Computed, QueryPassages
from encoders.batch_metrics import BatchMetrics
from encoders.opening import ReadingBatcher, open_reading
from encoders.reading import PassageReader, Read, best_span, load_passage_reader
from generator_worker.reader import QueuedReader
from generator_worker.settings import GeneratorSettings
from runtime.deadline import Deadline

READER: Final = "production-rag/reader"


async def score_collections(
    asked: Mapping[str, Sequence[QueryPassages]], settings: GeneratorSettings
) -> dict[str, Computed]:
    """The scores of all pairs, in order, by collection, of the reader that the settings name.

    They are log-odds: their order is what counts. Raises ModelUnusableError.
    """
    async with _running(settings) as reader:
        return {name: await _score_all(reader, questions) for name, questions in asked.items()}


@contextlib.asynccontextmanager
async def _running(settings: GeneratorSettings) -> AsyncIterator[QueuedReader]:
    """The reader behind its queue, in this process, as the generator runs it."""

    def load(stopped: Event) -> PassageReader:
        return load_passage_reader(settings.reader_model, settings.embedding_runtime(stopped))

    async def ignore(_: bool) -> None:
        """A batch that fails raises."""

    async def open_reader() -> tuple[PassageReader, ReadingBatcher]:
        metrics = BatchMetrics(CollectorRegistry())
        return await open_reading(load, settings.limits, metrics=metrics, on_health=ignore)

    reader = QueuedReader(open_reader)
    await reader.start()
    try:
        yield reader
    finally:
        await reader.close()


async def _score_all(reader: QueuedReader, questions: Sequence[QueryPassages]) -> Computed:
    """One question at a time, as `flood.score_all` asks a reranker."""
    started_s = time.perf_counter()
    scores: list[float] = []
    for one in questions:
        reads = await reader.read(one.query, one.passages, Deadline.after(TIMEOUT_S))
        scores += passage_scores(one.passages, reads)
    seconds = time.perf_counter() - started_s
    return Computed(np.array(scores, np.float32), seconds)


def passage_scores(passages: Sequence[str], reads: Sequence[Read]) -> list[float]:
    """One per passage of a question; what has no token is the least of them."""
    spans = [
        best_span(read, 0, len(passage)) for passage, read in zip(passages, reads, strict=True)
    ]
    least = min((span.score for span in spans if span is not None), default=0.0)
    return [least if span is None else span.score for span in spans]
