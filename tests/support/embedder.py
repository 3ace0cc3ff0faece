"""An embedder that counts, waits and fails as it is told."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

import numpy as np

from gateway.clients import Embeddings, InputType, Lane, ModelIdentity
from gateway.embedders import mismatch
from runtime.deadline import Deadline

DIMENSION = 8
FINGERPRINT = "f" * 64


def vector_of(text: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """The vector that `CountingEmbedder` gives a text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    vector = np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)
    return vector / np.float32(np.linalg.norm(vector))


class CountingEmbedder:
    """calls: the texts of each call; gate: while clear, calls wait; error: raised when set."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.cancelled = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def model(self, deadline: Deadline) -> ModelIdentity:
        return ModelIdentity("model", FINGERPRINT, DIMENSION, 256)

    async def next_model(self, deadline: Deadline) -> ModelIdentity:
        return await self.model(deadline)

    async def require(self, fingerprint: str, deadline: Deadline) -> None:
        if (held := await self.model(deadline)).fingerprint != fingerprint:
            raise mismatch(fingerprint, [held])

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
        self.calls.append(list(texts))
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        cut = frozenset(i for i, text in enumerate(texts) if "long" in text)
        return Embeddings(np.stack([vector_of(text) for text in texts]), cut, fingerprint)
