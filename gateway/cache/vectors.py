"""Vectors by model, input type and text: LRU, then Redis, then one flight to the embedder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np

from gateway.cache.entry import Entry
from gateway.cache.flights import Background, Flights
from gateway.cache.lru import Lru
from gateway.cache.redis_tier import RedisTier
from gateway.clients import Embeddings, InputType, Lane, ModelIdentity
from gateway.metrics import GatewayMetrics
from gateway.pipeline import QuestionVector
from runtime.deadline import Deadline

# Writes to Redis nobody waits for; more at once means that it cannot keep up.
_WRITES_AT_ONCE: Final = 64


class Embedder(Protocol):
    """Whoever makes vectors."""

    async def model(self, deadline: Deadline) -> ModelIdentity:
        """The model that collections are made with."""

    async def next_model(self, deadline: Deadline) -> ModelIdentity:
        """The model that collections are rebuilt with."""

    async def require(self, fingerprint: str, deadline: Deadline) -> None:
        """Raises ServiceError MODEL_MISMATCH when nobody makes vectors of that model."""

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


class VectorCache:
    """Questions through both tiers, passages through Redis alone.

    Passages would wash the questions out of memory, and are seldom asked for twice. Only
    successes are kept.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        size: int,
        redis: RedisTier | None,
        budget_s: float,
        metrics: GatewayMetrics,
    ) -> None:
        self._embedder = embedder
        self._memory: Lru[bytes, Entry] = Lru(size)
        self._redis = redis
        self._metrics = metrics
        self._flights: Flights[bytes, tuple[Entry, bool]] = Flights(budget_s)
        self._writes = Background(_WRITES_AT_ONCE)

    async def question(self, text: str, fingerprint: str, deadline: Deadline) -> QuestionVector:
        """The vector of normalised text; concurrent calls for one text make it once.

        Raises what the embedder raises, or ServiceError DEADLINE_EXCEEDED.
        """
        key = cache_key(text, "query", fingerprint)
        entry = self._memory.get(key)
        if entry is not None:
            self._metrics.cache_hit("memory")
            return QuestionVector(entry.vector, entry.cut, True)
        entry, hit = await self._flights.join(
            key, lambda budget: self._fetch(key, text, fingerprint, budget), deadline
        )
        if hit:
            self._metrics.cache_hit("redis")
        else:
            self._metrics.cache_misses.inc()
        return QuestionVector(entry.vector, entry.cut, hit)

    async def model(self, deadline: Deadline) -> ModelIdentity:
        """The embedder's: with this and the next two, the cache stands in for the embedder."""
        return await self._embedder.model(deadline)

    async def next_model(self, deadline: Deadline) -> ModelIdentity:
        """The embedder's."""
        return await self._embedder.next_model(deadline)

    async def require(self, fingerprint: str, deadline: Deadline) -> None:
        """The embedder's."""
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
        """As `Embedders.embed`, with what Redis already holds left out of the call."""
        if self._redis is None or not fingerprint or not truncate:
            return await self._embedder.embed(
                texts,
                input_type=input_type,
                lane=lane,
                fingerprint=fingerprint,
                deadline=deadline,
                truncate=truncate,
            )
        keys = [cache_key(text, input_type, fingerprint) for text in texts]
        entries = await self._redis.get_many(keys)
        missing = [position for position, entry in enumerate(entries) if entry is None]
        if missing:
            made = await self._embedder.embed(
                [texts[position] for position in missing],
                input_type=input_type,
                lane=lane,
                fingerprint=fingerprint,
                deadline=deadline,
            )
            fresh: dict[bytes, Entry] = {}
            for row, position in enumerate(missing):
                entry = Entry(made.vectors[row], row in made.truncated)
                entries[position] = fresh[keys[position]] = entry
            await self._redis.put_many(fresh)
        kept = [entry for entry in entries if entry is not None]
        cut = frozenset(position for position, entry in enumerate(kept) if entry.cut)
        return Embeddings(np.stack([entry.vector for entry in kept]), cut, fingerprint)

    async def aclose(self) -> None:
        """Finishes the writes under way, then closes Redis."""
        await self._writes.aclose()
        if self._redis is not None:
            await self._redis.aclose()

    async def _fetch(
        self, key: bytes, text: str, fingerprint: str, budget: Deadline
    ) -> tuple[Entry, bool]:
        """The entry, and whether Redis had it."""
        redis = self._redis
        if redis is not None and (kept := (await redis.get_many([key]))[0]) is not None:
            self._memory.put(key, kept)
            return kept, True
        made = await self._embedder.embed(
            [text],
            input_type="query",
            lane="interactive",
            fingerprint=fingerprint,
            deadline=budget,
        )
        entry = Entry(made.vectors[0], 0 in made.truncated)
        self._memory.put(key, entry)
        if redis is not None:
            self._writes.run(lambda: redis.put_many({key: entry}))
        return entry, False


def cache_key(text: str, input_type: InputType, fingerprint: str) -> bytes:
    """Whose vector it is: of this text, for this use, by this model."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"rag:vector:{fingerprint}:{input_type}:{digest}".encode()
