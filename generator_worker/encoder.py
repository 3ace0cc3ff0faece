"""Models behind their queues, for the extractive engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence, Sized
from typing import Generic, TypeVar

import numpy as np

from encoders.batching import Batcher
from encoders.embedding import EmbeddingModel
from encoders.encoder import EncoderModel, Floats
from encoders.tokenizing import Tokens
from generator_worker.selection import Vectors
from runtime.deadline import Deadline

M = TypeVar("M", bound=EncoderModel)
P = TypeVar("P", bound=Sized)
R = TypeVar("R")


class Queued(Generic[M, P, R]):
    """A model and its batcher, once started; the work of several callers shares batches.

    open_model: opens both; called by `start`.
    """

    def __init__(self, open_model: Callable[[], Awaitable[tuple[M, Batcher[P, R]]]]) -> None:
        self._open = open_model
        self._running: tuple[M, Batcher[P, R]] | None = None

    @property
    def name(self) -> str:
        """Name of the model, "" before it is loaded."""
        return "" if self._running is None else self._running[0].identity.name

    @property
    def fingerprint(self) -> str:
        """Tells models apart; "" before it is loaded."""
        return "" if self._running is None else self._running[0].identity.fingerprint

    async def start(self) -> str:
        """Loads, warms and checks the model; returns its description."""
        self._running = await self._open()
        return self._running[0].description

    async def compute(self, prepare: Callable[[M], Sequence[P]], deadline: Deadline) -> Sequence[R]:
        """A result for each row that `prepare` makes, in a thread; a row's length is its tokens.

        Raises ServiceError QUEUE_FULL, DEADLINE_EXCEEDED, MODEL_FAILED, UNAVAILABLE
        or DRAINING.
        """
        if self._running is None:
            raise RuntimeError("start() comes first")
        model, batcher = self._running
        rows = await asyncio.to_thread(prepare, model)
        answer = await batcher.submit(
            rows,
            [len(row) for row in rows],
            lane="interactive",
            remaining_s=deadline.remaining_s(),
        )
        return answer.results

    async def close(self) -> None:
        """Answers what waits and releases the model."""
        if self._running is not None:
            model, batcher = self._running
            await batcher.aclose()
            model.close()


class EmbeddingEncoder(Queued[EmbeddingModel, Tokens, Floats]):
    """Embeds questions and sentences."""

    async def embed(
        self, question: str, sentences: Sequence[str], deadline: Deadline
    ) -> tuple[Vectors, Vectors]:
        """Unit vectors: float32 [d] and [n, d]. Raises as `compute`."""

        def tokenize(model: EmbeddingModel) -> list[Tokens]:
            asked = model.tokenize([question], "query")
            return asked + model.tokenize(sentences, "passage")

        vectors = _unit(np.stack(await self.compute(tokenize, deadline)))
        return vectors[0], vectors[1:]


def _unit(vectors: Vectors) -> Vectors:
    """Not every model normalises its vectors."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
