"""The embedding model behind its queue, for the extractive engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from encoders.embedding import EmbeddingModel
from encoders.opening import EmbeddingBatcher
from encoders.tokenizing import Tokens
from generator_worker.selection import Vectors
from runtime.deadline import Deadline


class EmbeddingEncoder:
    """Embeds questions and sentences; the sentences of several callers share batches.

    open_model: opens the model and its batcher; called by `start`.
    """

    def __init__(
        self, open_model: Callable[[], Awaitable[tuple[EmbeddingModel, EmbeddingBatcher]]]
    ) -> None:
        self._open = open_model
        self._running: tuple[EmbeddingModel, EmbeddingBatcher] | None = None

    @property
    def name(self) -> str:
        """Name of the model, "" before it is loaded."""
        return "" if self._running is None else self._running[0].identity.name

    async def start(self) -> str:
        """Loads, warms and checks the model; returns its description."""
        self._running = await self._open()
        return self._running[0].description

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
        answer = await batcher.submit(
            tokens,
            [len(row) for row in tokens],
            lane="interactive",
            remaining_s=deadline.remaining_s(),
        )
        vectors = _unit(np.stack(answer.results))
        return vectors[0], vectors[1:]

    async def close(self) -> None:
        """Answers what waits and releases the model."""
        if self._running is not None:
            model, batcher = self._running
            await batcher.aclose()
            model.close()


def _tokenize(model: EmbeddingModel, question: str, sentences: Sequence[str]) -> list[Tokens]:
    return model.tokenize([question], "query") + model.tokenize(sentences, "passage")


def _unit(vectors: Vectors) -> Vectors:
    """Not every model normalises its vectors."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
