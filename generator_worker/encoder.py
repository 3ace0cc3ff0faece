"""The embedding model behind its queue, for the extractive engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from encoders.batch_metrics import BatchMetrics
from encoders.batching import Batcher
from encoders.embedding import EmbeddingModel
from encoders.encoder import Floats
from encoders.limits import Limits
from encoders.self_check import check_embedding
from encoders.tokenizing import Tokens
from generator_worker.selection import Vectors
from runtime.deadline import Deadline


class EmbeddingEncoder:
    """Embeds questions and sentences; the sentences of several callers share batches.

    load: opens the model; called by `start`, in the thread that will run it.
    limits: the batcher's bounds, by the batch that is fastest here (padded tokens).
    on_health: told False when the model fails again and again, True when it works again.
    """

    def __init__(
        self,
        load: Callable[[], EmbeddingModel],
        limits: Callable[[int], Limits],
        metrics: BatchMetrics,
        on_health: Callable[[bool], Awaitable[None]],
    ) -> None:
        self._load = load
        self._limits = limits
        self._metrics = metrics
        self._on_health = on_health
        self._running: tuple[EmbeddingModel, Batcher[Tokens, Floats]] | None = None

    @property
    def name(self) -> str:
        """Name of the model, "" before it is loaded."""
        return "" if self._running is None else self._running[0].identity.name

    async def start(self) -> str:
        """Loads, warms and checks the model; returns its description."""
        thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        model = await asyncio.get_running_loop().run_in_executor(thread, self._open)
        batcher: Batcher[Tokens, Floats] = Batcher(
            lambda batch: list(model.embed(batch)),
            self._limits(model.batch_tokens),
            self._metrics,
            probe=lambda: check_embedding(model),
            on_health=self._on_health,
            padded=model.padded,
            executor=thread,
        )
        batcher.start()
        self._running = (model, batcher)
        return model.description

    async def embed(
        self, question: str, sentences: Sequence[str], deadline: Deadline
    ) -> tuple[Vectors, Vectors]:
        """Unit vectors: float32 [d] and [n, d].

        Raises ServiceError QUEUE_FULL, DEADLINE_EXCEEDED, MODEL_FAILED, UNAVAILABLE
        or DRAINING.
        """
        if self._running is None:
            raise RuntimeError("start() comes first")
        model, batcher = self._running
        tokens = await asyncio.to_thread(_tokenize, model, question, sentences)
        rows = await batcher.submit(
            tokens,
            [len(row) for row in tokens],
            lane="interactive",
            remaining_s=deadline.remaining_s(),
        )
        vectors = _unit(np.stack(rows))
        return vectors[0], vectors[1:]

    async def close(self) -> None:
        """Answers what waits and releases the model."""
        if self._running is not None:
            model, batcher = self._running
            await batcher.aclose()
            model.close()

    def _open(self) -> EmbeddingModel:
        model = self._load()
        model.warm_up()
        check_embedding(model)
        return model


def _tokenize(model: EmbeddingModel, question: str, sentences: Sequence[str]) -> list[Tokens]:
    return model.tokenize([question], "query") + model.tokenize(sentences, "passage")


def _unit(vectors: Vectors) -> Vectors:
    """Not every model normalises its vectors."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
