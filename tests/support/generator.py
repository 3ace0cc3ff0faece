"""A generator worker inside a test, over a real socket, with a model that needs no weights."""

from __future__ import annotations

import re
import threading
import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry
from rag.generator.v1 import generator_pb2, generator_pb2_grpc
from support.serving import Running, listening

from encoders.identity import ModelIdentity
from encoders.reading import Read, Reading
from encoders.tokenizing import Tokens
from generator_worker.sentences import words
from generator_worker.service import SERVICE_NAME
from generator_worker.settings import NO_READER, GeneratorSettings
from generator_worker.worker import build_service, open_models
from runtime.channel import open_channel
from runtime.health import Health
from runtime.server import serve_worker
from runtime.telemetry import Tracing

DIMENSION = 512
IDENTITY = ModelIdentity("words", "0" * 16, DIMENSION, 256)
READER_IDENTITY = ModelIdentity("words-reader", "1" * 16, 0, 256)


@dataclass
class WordModel:
    """Stands for an embedding model: vectors of hashed words, so texts that share words are near.

    loaded, open: what loading and computing wait for. entered: set when computing has begun.
    error: what computing raises.
    """

    loaded: threading.Event = field(default_factory=threading.Event)
    open: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None
    closed: bool = False
    identity: ModelIdentity = IDENTITY
    description: str = "words"
    precision: str = "fp32"
    normalised: bool = False
    batch_tokens: int = 1024
    streams: int = 1

    def __post_init__(self) -> None:
        self.loaded.set()
        self.open.set()

    def block(self) -> None:
        """From now on computing waits until `open` is set."""
        self.entered.clear()
        self.open.clear()

    def load(self, stopped: threading.Event) -> Any:
        assert self.loaded.wait(30)
        return self

    def warm_up(self) -> float:
        return 10_000.0

    def padded(self, tokens: int) -> int:
        return tokens

    def tokenize(self, texts: Sequence[str], input_type: str) -> list[Tokens]:
        return [_tokens(text) for text in texts]

    def embed(self, batch: Sequence[Tokens]) -> np.ndarray:
        self.entered.set()
        assert self.open.wait(30)
        if self.error is not None:
            raise self.error
        vectors = np.full((len(batch), DIMENSION), 1e-6, dtype=np.float32)
        for row, tokens in enumerate(batch):
            np.add.at(vectors[row], tokens.ids, 1)
        return vectors

    def close(self) -> None:
        self.closed = True


def _tokens(text: str) -> Tokens:
    ids = np.array([zlib.crc32(word.encode()) % DIMENSION for word in words(text)] or [0])
    return Tokens(ids, np.zeros_like(ids), np.ones(len(ids), np.bool_), 0, truncated=False)


@dataclass
class WordReader:
    """Stands for a reader: a word is a token, and the answer is any of `answers`.

    error: what reading raises.
    """

    answers: frozenset[str] = frozenset()
    error: Exception | None = None
    closed: bool = False
    identity: ModelIdentity = READER_IDENTITY
    description: str = "a reader of words"
    precision: str = "fp32"
    batch_tokens: int = 1024
    streams: int = 1

    def load(self, stopped: threading.Event) -> Any:
        return self

    def warm_up(self) -> float:
        return 10_000.0

    def padded(self, tokens: int) -> int:
        return tokens

    def prepare(self, question: str, passages: Sequence[str]) -> list[Reading]:
        return [self._row(passage) for passage in passages]

    def _row(self, passage: str) -> Reading:
        found = list(re.finditer(r"\w+", passage))
        # The ids say which words answer; the first is that of [CLS].
        ids = np.array([0, *(match.group() in self.answers for match in found)], np.int64)
        tokens = Tokens(ids, np.zeros_like(ids), np.ones(len(ids), np.bool_), 0, truncated=False)
        return Reading(tokens, np.array([match.span() for match in found]).reshape(-1, 2), 1)

    def read(self, batch: Sequence[Reading]) -> list[Read]:
        if self.error is not None:
            raise self.error
        made = []
        for row in batch:
            answers = 60.0 * row.tokens.ids[1:] - 30
            # Of words that answer alike the first begins it and the last ends it.
            later = 1e-3 * np.arange(len(answers))
            begins, ends = (
                (answers - later).astype(np.float32),
                (answers + later).astype(np.float32),
            )
            made.append(Read(begins, ends, 0.0, row.ranges))
        return made

    def close(self) -> None:
        self.closed = True


Stub = generator_pb2_grpc.GeneratorServiceStub


@asynccontextmanager
async def generator(
    model: WordModel,
    reader: WordReader | None = None,
    *,
    ready: bool = True,
    registry: Any = None,
    **settings: Any,
) -> AsyncIterator[tuple[Stub, Running]]:
    """The worker as production builds it, but for the models; yields once it is ready."""
    registry = registry or CollectorRegistry()
    settings.setdefault("reader_model", NO_READER if reader is None else "words")
    reader = reader or WordReader()

    def run(fd: int) -> Any:
        read = GeneratorSettings(
            _env_file=None,
            **{
                "grpc_host": "127.0.0.1", "grpc_port": 0, "metrics_host": "127.0.0.1",
                "metrics_port": 0, "drain_pause_seconds": 0, "control_fd": fd, **settings,
            },
        )  # fmt: skip
        health = Health(SERVICE_NAME)
        models = open_models(read, registry, health, model.load, reader.load)
        return serve_worker(read, build_service(read, registry, models), health, registry)

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
