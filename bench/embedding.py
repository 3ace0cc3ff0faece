"""The embedder alone: texts straight to the worker over gRPC, as fast as it takes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Final

from rag.embedder.v1 import embedder_pb2, embedder_pb2_grpc

from runtime.channel import open_channel
from runtime.telemetry import Tracing

SERVICE: Final = "rag.embedder.v1.EmbedderService"
# Texts a call, as EMBEDDING_BATCH_SIZE; calls in flight, so that one is always waiting.
BATCH: Final = 32
IN_FLIGHT: Final = 4
TIMEOUT_S: Final = 120.0


async def embed_all(target: str, texts: Sequence[str]) -> tuple[float, int]:
    """Embeds all texts in the bulk lane; seconds it took, and the tokens the model read."""
    batches = (texts[start : start + BATCH] for start in range(0, len(texts), BATCH))
    async with open_channel(target, SERVICE, Tracing(None)) as channel:
        stub = embedder_pb2_grpc.EmbedderServiceStub(channel)
        await stub.GetModel(embedder_pb2.GetModelRequest(), timeout=TIMEOUT_S)  # connects
        started_s = time.perf_counter()
        tokens = await asyncio.gather(*(_sender(stub, batches) for _ in range(IN_FLIGHT)))
        return time.perf_counter() - started_s, sum(tokens)


async def _sender(
    stub: embedder_pb2_grpc.EmbedderServiceAsyncStub, batches: Iterator[Sequence[str]]
) -> int:
    tokens = 0
    for batch in batches:
        request = embedder_pb2.EmbedTextsRequest(
            texts=batch,
            input_type=embedder_pb2.INPUT_TYPE_PASSAGE,
            lane=embedder_pb2.LANE_BULK,
            truncate=True,
        )
        answer = await stub.EmbedTexts(request, timeout=TIMEOUT_S)
        tokens += answer.tokens
    return tokens
