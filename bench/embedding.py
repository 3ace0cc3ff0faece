"""An embedder alone, ours or another: texts straight to it, and what it takes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import numpy as np
from rag.embedder.v1 import embedder_pb2, embedder_pb2_grpc

from bench.concurrency import in_flight
from bench.prepared import EMBEDDER
from bench.vectors import Floats
from runtime.channel import open_channel
from runtime.telemetry import Tracing

# Texts a call, as EMBEDDING_BATCH_SIZE; calls in flight, so that one is always waiting.
BATCH: Final = 32
IN_FLIGHT: Final = 4
TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Answer:
    """vectors: float32 [texts, dimension]; tokens: that the model read, 0 if it does not say."""

    vectors: Floats
    tokens: int


@dataclass(frozen=True, slots=True)
class Embedded:
    """All texts' vectors in order, the tokens the model read, and the seconds it took."""

    seconds: float
    tokens: int
    vectors: Floats


class Send(Protocol):
    """One call of an embedder; `bulk` says whether a person waits."""

    async def __call__(self, texts: Sequence[str], *, bulk: bool) -> Answer:
        """The texts' vectors. Raises what the transport raises."""


@asynccontextmanager
async def over_grpc(target: str) -> AsyncIterator[Send]:
    """Calls of our embedder at `target`, connected."""
    async with open_channel(target, EMBEDDER, Tracing(None)) as channel:
        stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
        await stub.GetModel(embedder_pb2.GetModelRequest(), timeout=TIMEOUT_S)  # connects

        async def send(texts: Sequence[str], *, bulk: bool) -> Answer:
            request = embedder_pb2.EmbedTextsRequest(
                texts=texts,
                input_type=embedder_pb2.INPUT_TYPE_PASSAGE
                if bulk
                else embedder_pb2.INPUT_TYPE_QUERY,
                lane=embedder_pb2.LANE_BULK if bulk else embedder_pb2.LANE_INTERACTIVE,
                truncate=True,
            )
            answer = await stub.EmbedTexts(request, timeout=TIMEOUT_S)
            vectors = np.frombuffer(answer.vectors, "<f4").reshape(-1, answer.dimension)
            return Answer(vectors, answer.tokens)

        yield send


async def embed_all(target: str, texts: Sequence[str]) -> Embedded:
    """Embeds all texts in the bulk lane of our embedder."""
    async with over_grpc(target) as send:
        return await in_bulk(send, texts)


async def in_bulk(send: Send, texts: Sequence[str]) -> Embedded:
    """All texts, BATCH a call and IN_FLIGHT calls at a time."""
    calls = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    started_s = time.perf_counter()
    answers = await in_flight(partial(send, bulk=True), calls, IN_FLIGHT)
    seconds = time.perf_counter() - started_s
    vectors = np.concatenate([answer.vectors for answer in answers])
    return Embedded(seconds, sum(answer.tokens for answer in answers), vectors)
