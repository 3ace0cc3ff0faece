"""A generator worker inside a test, over a real socket, with an encoder that needs no model."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry
from rag.generator.v1 import generator_pb2, generator_pb2_grpc
from support.serving import Running, listening

from generator_worker.selection import Vectors
from generator_worker.sentences import words
from generator_worker.service import SERVICE_NAME
from generator_worker.settings import GeneratorSettings
from generator_worker.worker import build_service
from runtime.channel import open_channel
from runtime.health import Health
from runtime.server import serve_worker
from runtime.telemetry import Tracing

DIMENSION = 512


@dataclass
class WordEncoder:
    """Vectors of hashed words: texts that share words are near.

    loaded, open: what start and embed wait for. entered: set when an embed has begun.
    """

    loaded: asyncio.Event = field(default_factory=asyncio.Event)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None
    closed: bool = False
    name: str = "words"

    def __post_init__(self) -> None:
        self.loaded.set()
        self.open.set()

    async def start(self) -> str:
        await self.loaded.wait()
        return "words"

    async def embed(self, question: str, sentences: Sequence[str]) -> tuple[Vectors, Vectors]:
        self.entered.set()
        await self.open.wait()
        if self.error is not None:
            raise self.error
        vectors = np.stack([_vector(text) for text in (question, *sentences)])
        return vectors[0], vectors[1:]

    async def close(self) -> None:
        self.closed = True


def _vector(text: str) -> Vectors:
    vector = np.full(DIMENSION, 1e-6, dtype=np.float32)
    for word in words(text):
        vector[zlib.crc32(word.encode()) % DIMENSION] += 1
    unit: Vectors = vector / np.linalg.norm(vector)
    return unit


Stub = generator_pb2_grpc.GeneratorServiceStub


@asynccontextmanager
async def generator(
    encoder: WordEncoder, *, ready: bool = True, registry: Any = None, **settings: Any
) -> AsyncIterator[tuple[Stub, Running]]:
    """The worker as production builds it, but for the encoder; yields once it is ready."""
    registry = registry or CollectorRegistry()

    def run(fd: int) -> Any:
        read = GeneratorSettings(
            _env_file=None,
            **{
                "grpc_host": "127.0.0.1", "grpc_port": 0, "metrics_host": "127.0.0.1",
                "metrics_port": 0, "drain_pause_seconds": 0, "control_fd": fd, **settings,
            },
        )  # fmt: skip
        service = build_service(read, registry, lambda _: encoder)
        return serve_worker(read, service, Health(SERVICE_NAME), registry)

    async with listening(run) as running:
        if ready:
            await running.ready()
        async with open_channel(running.target, SERVICE_NAME, Tracing(None)) as channel:
            yield generator_pb2_grpc.GeneratorServiceStub(channel), running


def ask(question: str, *passages: str, **options: Any) -> generator_pb2.GenerateAnswerRequest:
    """A request."""
    return generator_pb2.GenerateAnswerRequest(
        question=question,
        passages=[generator_pb2.Passage(text=text) for text in passages],
        **options,
    )


async def collect(call: Any) -> tuple[list[str], generator_pb2.Completion]:
    """The pieces and the completion of a call; the completion is the last message."""
    pieces: list[str] = []
    completion: generator_pb2.Completion | None = None
    async for message in call:
        assert completion is None, "nothing comes after the completion"
        if message.WhichOneof("event") == "completion":
            completion = message.completion
        else:
            assert message.text_delta
            pieces.append(message.text_delta)
    assert completion is not None
    return pieces, completion
