"""The embedding model in a thread of its own, for the extractive engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from encoders.embedding import EmbeddingModel
from generator_worker.selection import Vectors
from runtime.errors import Reason, ServiceError

log = logging.getLogger(__name__)


class EmbeddingEncoder:
    """Embeds one question with its sentences at a time; the model belongs to one thread."""

    def __init__(self, load: Callable[[], EmbeddingModel]) -> None:
        self._load = load
        self._thread = ThreadPoolExecutor(1, "encoder")
        self._model: EmbeddingModel | None = None

    @property
    def name(self) -> str:
        """Name of the model, "" before it is loaded."""
        return "" if self._model is None else self._model.identity.name

    async def start(self) -> str:
        """Loads and warms the model; returns its description."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._open)

    async def embed(self, question: str, sentences: Sequence[str]) -> tuple[Vectors, Vectors]:
        """Unit vectors: float32 [d] and [n, d].

        Raises ServiceError MODEL_FAILED when the model does.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, self._embed, question, sentences)
        except Exception as error:
            log.exception("the embedding model failed")
            message = "The embedding model of the generator failed."
            raise ServiceError(Reason.MODEL_FAILED, message) from error

    async def close(self) -> None:
        """Releases the model, after what it is computing."""
        await asyncio.to_thread(self._thread.shutdown)
        if self._model is not None:
            self._model.close()

    def _open(self) -> str:
        self._model = self._load()
        self._model.warm_up()
        return self._model.description

    def _embed(self, question: str, sentences: Sequence[str]) -> tuple[Vectors, Vectors]:
        if self._model is None:
            raise RuntimeError("start() comes first")
        asked = self._model.encode([question], "query")
        read = self._model.encode(sentences, "passage")
        return _unit(asked)[0], _unit(read)


def _unit(vectors: Vectors) -> Vectors:
    """Not every model normalises its vectors."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
