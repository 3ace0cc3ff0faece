"""The embedding model behind its queue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event
from typing import Self

import numpy as np

from embedder_worker.settings import EmbedderSettings
from encoders.batch_metrics import BatchMetrics
from encoders.blueprint import InputType
from encoders.embedding import EmbeddingModel, load_embedding_model
from encoders.encoder import Floats
from encoders.identity import ModelIdentity
from encoders.lanes import LANES, Lane
from encoders.opening import EmbeddingBatcher, open_embedding
from encoders.requests import too_long
from encoders.tokenizing import short


@dataclass(frozen=True, slots=True)
class Embedded:
    """vectors: float32 [texts, dimension]; truncated: positions of texts that were cut.

    queue_s, model_s: as in `Answer`.
    """

    vectors: Floats
    truncated: list[int]
    tokens: int
    queue_s: float
    model_s: float


class Embedder:
    """Tokenises, all but short calls in a thread a lane, and embeds through the batcher."""

    def __init__(self, model: EmbeddingModel, batcher: EmbeddingBatcher) -> None:
        self._model = model
        self._batcher = batcher
        # One thread a lane waits for the tokenizers' own, so that a question never stands
        # behind the thousand texts of a bulk call.
        self._tokenizers = {
            lane: ThreadPoolExecutor(1, thread_name_prefix=f"tokenizer-{lane}") for lane in LANES
        }

    @classmethod
    async def open(
        cls,
        settings: EmbedderSettings,
        metrics: BatchMetrics,
        on_health: Callable[[bool], Awaitable[None]],
    ) -> Self:
        """Loads, warms and checks the model in the threads that will run it."""

        def load(stopped: Event) -> EmbeddingModel:
            return load_embedding_model(
                settings.embedding_model, settings.embedding_runtime(stopped)
            )

        opened = open_embedding(load, settings.limits, metrics=metrics, on_health=on_health)
        return cls(*await opened)

    @property
    def identity(self) -> ModelIdentity:
        """Of the loaded model."""
        return self._model.identity

    @property
    def description(self) -> str:
        """Such as "all-MiniLM-L6-v2@1a2b3c4d, openvino bf16, 2 threads"."""
        return self._model.description

    async def embed(
        self,
        texts: Sequence[str],
        *,
        input_type: InputType,
        lane: Lane,
        truncate: bool,
        remaining_s: Callable[[], float | None],
    ) -> Embedded:
        """One vector per text, in order.

        remaining_s: asked after tokenising, which takes time too.

        Raises ServiceError TEXT_TOO_LONG when `truncate` is False and a text must
        be cut, and what `Batcher.submit` raises.
        """
        # Who cannot be served is told before anything is done for them.
        guess = self._model.guessed_tokens(texts)
        self._batcher.admit(guess, lane=lane, remaining_s=remaining_s())
        if short(texts):
            tokens = self._model.tokenize(texts, input_type)
        else:
            tokens = await asyncio.get_running_loop().run_in_executor(
                self._tokenizers[lane], self._model.tokenize, texts, input_type
            )
        truncated = [index for index, row in enumerate(tokens) if row.truncated]
        if truncated and not truncate:
            raise too_long(f"texts[{truncated[0]}]", self.identity.max_tokens)
        lengths = [len(row) for row in tokens]
        answer = await self._batcher.submit(tokens, lengths, lane=lane, remaining_s=remaining_s())
        return Embedded(
            np.stack(answer.results), truncated, sum(lengths), answer.queue_s, answer.model_s
        )

    async def aclose(self) -> None:
        """Answers what waits and releases the model."""
        await self._batcher.aclose()
        for pool in self._tokenizers.values():
            pool.shutdown(wait=False, cancel_futures=True)
        self._model.close()
