"""A sign of life of jobs that work on one large document for long."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gateway.cache.vectors import Embedder
from gateway.clients import Embeddings, InputType, Lane, ModelIdentity
from runtime.deadline import Deadline


class PulseEmbedder:
    """The embedder of the jobs, which remembers when it last gave vectors."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._at_s = 0.0

    def last_s(self) -> float:
        """When vectors were last given, on the monotonic clock."""
        return self._at_s

    async def model(self, deadline: Deadline) -> ModelIdentity:
        """The model that collections are made with."""
        return await self._embedder.model(deadline)

    async def next_model(self, deadline: Deadline) -> ModelIdentity:
        """The model that collections are rebuilt with."""
        return await self._embedder.next_model(deadline)

    async def require(self, fingerprint: str, deadline: Deadline) -> None:
        """Raises ServiceError MODEL_MISMATCH when nobody makes vectors of that model."""
        await self._embedder.require(fingerprint, deadline)

    async def embed(
        self,
        texts: Sequence[str],
        *,
        input_type: InputType,
        lane: Lane,
        fingerprint: str,
        deadline: Deadline,
        truncate: bool = True,
    ) -> Embeddings:
        """One vector per text."""
        made = await self._embedder.embed(
            texts,
            input_type=input_type,
            lane=lane,
            fingerprint=fingerprint,
            deadline=deadline,
            truncate=truncate,
        )
        self._at_s = time.monotonic()
        return made
