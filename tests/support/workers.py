"""The three workers' services without models, over real gRPC, told what to do by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from prometheus_client import CollectorRegistry
from rag.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from rag.generator.v1 import generator_pb2, generator_pb2_grpc
from rag.reranker.v1 import reranker_pb2, reranker_pb2_grpc
from support.embedder import DIMENSION, FINGERPRINT, vector_of

from gateway.clients import EMBEDDER_SERVICE, GENERATOR_SERVICE, RERANKER_SERVICE
from runtime.channel import open_channel
from runtime.errors import Reason, ServiceError
from runtime.health import Health
from runtime.interceptors import Gate, ServerInterceptor
from runtime.metrics import RpcMetrics
from runtime.telemetry import Tracing


@dataclass
class Script:
    """errors: raised by the next calls, one each (None: not this one).

    gate: while clear, calls wait; pause_after: clears it after so many calls.

    twist: changes an answer before it is sent; requests: what came in.
    fingerprint: of the embedder's model; it refuses calls that want another one.
    """

    errors: list[Exception | None] = field(default_factory=list)
    pause_after: int = -1
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    twist: Callable[[Any], Any] = lambda answer: answer
    requests: list[Any] = field(default_factory=list)
    timeouts_s: list[float] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    fingerprint: str = FINGERPRINT

    def __post_init__(self) -> None:
        self.gate.set()

    async def play(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.timeouts_s.append(context.time_remaining())
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if len(self.requests) == self.pause_after:
            self.gate.clear()
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error


class _Embedder(embedder_pb2_grpc.EmbedderServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    async def GetModel(self, request: Any, context: Any) -> Any:
        await self._script.play(request, context)
        return self._script.twist(
            embedder_pb2.GetModelResponse(
                name="model",
                fingerprint=self._script.fingerprint,
                dimension=DIMENSION,
                max_tokens=256,
            )
        )

    async def EmbedTexts(self, request: Any, context: Any) -> Any:
        await self._script.play(request, context)
        if request.expected_fingerprint not in ("", self._script.fingerprint):
            raise ServiceError(Reason.MODEL_MISMATCH, "Another model is loaded.")
        vectors = np.stack([vector_of(text) for text in request.texts]).astype("<f4")
        return self._script.twist(
            embedder_pb2.EmbedTextsResponse(
                vectors=vectors.tobytes(),
                dimension=DIMENSION,
                truncated=[n for n, text in enumerate(request.texts) if "long" in text],
                fingerprint=self._script.fingerprint,
            )
        )


class _Reranker(reranker_pb2_grpc.RerankerServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    async def GetModel(self, request: Any, context: Any) -> Any:
        await self._script.play(request, context)
        return reranker_pb2.GetModelResponse(name="reranker", fingerprint="r" * 64, max_tokens=256)

    async def ScorePassages(self, request: Any, context: Any) -> Any:
        await self._script.play(request, context)
        scores = [1 / (1 + len(passage)) for passage in request.passages]
        return self._script.twist(reranker_pb2.ScorePassagesResponse(scores=scores))


class _Generator(generator_pb2_grpc.GeneratorServiceServicer):
    def __init__(self, script: Script) -> None:
        self._script = script

    async def GenerateAnswer(self, request: Any, context: Any) -> AsyncIterator[Any]:
        for word in ("Because ", "of ", "[1]."):
            await self._script.play(request, context)
            yield generator_pb2.GenerateAnswerResponse(text_delta=word)
        for last in self._script.twist(
            [
                generator_pb2.GenerateAnswerResponse(
                    completion=generator_pb2.Completion(
                        engine="extractive", model="model", completion_tokens=3, answered=True
                    )
                )
            ]
        ):
            yield last


@asynccontextmanager
async def _worker(
    service: str, methods: tuple[str, ...], add: Callable[[Any, grpc.aio.Server], None], to: Any
) -> AsyncIterator[str]:
    health = Health(service)
    gate = Gate(health, 100)
    metrics = RpcMetrics(CollectorRegistry(), methods)
    server = grpc.aio.server(
        interceptors=[ServerInterceptor(service, gate, Tracing(None), metrics)],
        options=[("grpc.so_reuseport", 0)],
    )
    add(to, server)
    await health.register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await health.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@asynccontextmanager
async def embedder(script: Script) -> AsyncIterator[str]:
    """Yields the target of an embedder that plays `script`."""
    add = embedder_pb2_grpc.add_EmbedderServiceServicer_to_server
    methods = ("GetModel", "EmbedTexts")
    async with _worker(EMBEDDER_SERVICE, methods, add, _Embedder(script)) as target:
        yield target


@asynccontextmanager
async def reranker(script: Script) -> AsyncIterator[str]:
    """Yields the target of a reranker that plays `script`: the shorter, the better."""
    add = reranker_pb2_grpc.add_RerankerServiceServicer_to_server
    methods = ("GetModel", "ScorePassages")
    async with _worker(RERANKER_SERVICE, methods, add, _Reranker(script)) as target:
        yield target


@asynccontextmanager
async def generator(script: Script) -> AsyncIterator[str]:
    """Yields the target of a generator that plays `script`, once before each word."""
    add = generator_pb2_grpc.add_GeneratorServiceServicer_to_server
    methods = ("GenerateAnswer",)
    async with _worker(GENERATOR_SERVICE, methods, add, _Generator(script)) as target:
        yield target


@asynccontextmanager
async def channel_to(target: str, service: str) -> AsyncIterator[grpc.aio.Channel]:
    """A channel as the gateway opens it."""
    channel = open_channel(target, service, Tracing(None))
    try:
        yield channel
    finally:
        await channel.close()
