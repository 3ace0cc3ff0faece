"""The gateway's collaborators without processes behind them, and the parts joined over them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry

from gateway.clients import AnswerSpan, Completion, ModelIdentity, Passage, Scores
from gateway.metrics import GatewayMetrics
from gateway.pipeline import Pipeline, Policy, QuestionVector
from gateway.search.filters import Filter
from gateway.search.types import Bm25, Chunking, Hit, Mode, Model, Stamp
from runtime.deadline import Deadline
from runtime.telemetry import Tracing

MODEL = Model("all-MiniLM-L6-v2", "a" * 64, 4)
RERANKER = ModelIdentity("late", "b" * 64, 0, 256)
COMPLETION = Completion("extractive", "MiniLM", 0, 3, False, True, False)


def marked(*spans: tuple[int, int, int]) -> Completion:
    """With spans: (passage, start, end) of each."""
    return replace(COMPLETION, spans=tuple(AnswerSpan(*span) for span in spans))


def hit(name: str, score: float, **metadata: Any) -> Hit:
    return Hit(f"{name}#0", name, 0, f"text of {name}", score, score, None, metadata)


HITS = [hit("a", 0.9, title="A"), hit("b", 0.8), hit("c", 0.7)]


@dataclass
class FakeStage:
    """error: raised when set; gate: while clear, calls wait; calls: arguments of each."""

    error: Exception | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[dict[str, Any]] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def play(self, **arguments: Any) -> None:
        self.calls.append(arguments)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.error is not None:
            raise self.error


@dataclass
class FakeVectors(FakeStage):
    cut: bool = False
    cache_hit: bool = False

    async def question(self, text: str, fingerprint: str, deadline: Deadline) -> QuestionVector:
        await self.play(text=text, fingerprint=fingerprint, deadline=deadline)
        return QuestionVector(np.ones(4, np.float32), self.cut, self.cache_hit)


@dataclass
class FakeSearch(FakeStage):
    hits: Sequence[Hit] = tuple(HITS)
    model: Model | None = MODEL

    async def stamp(self, collection: str, deadline: Deadline) -> Stamp:
        return Stamp(self.model, Chunking(512, 50), 4, Bm25(), 1, 1)

    async def nearest(
        self,
        collection: str,
        *,
        text: str,
        vector: npt.NDArray[np.float32] | None,
        mode: Mode,
        filter: Filter | None,  # noqa: A002
        limit: int,
        deadline: Deadline,
        fingerprint: str | None = None,
        stamp: Stamp | None = None,
    ) -> list[Hit]:
        await self.play(
            collection=collection,
            text=text,
            vector=vector,
            mode=mode,
            where=filter,
            limit=limit,
            fingerprint=fingerprint,
        )
        return list(self.hits[:limit])


@dataclass
class FakeReranker(FakeStage):
    values: Sequence[float] = (0.1, 0.2, 0.9)
    known_model: ModelIdentity | None = RERANKER

    async def score(self, query: str, passages: Sequence[str], *, deadline: Deadline) -> Scores:
        await self.play(query=query, passages=list(passages), deadline=deadline)
        return Scores(list(self.values[: len(passages)]), frozenset())


@dataclass
class FakeGenerator(FakeStage):
    pieces: Sequence[str | Completion] = ("Because ", "of [1].", COMPLETION)

    async def answer(
        self,
        question: str,
        passages: Sequence[Passage],
        *,
        temperature: float | None,
        max_tokens: int | None,
        deadline: Deadline,
    ) -> AsyncGenerator[str | Completion, None]:
        for piece in self.pieces:
            await self.play(question=question, passages=list(passages), deadline=deadline)
            yield piece


@dataclass
class Parts:
    """A pipeline and what it stands on."""

    vectors: FakeVectors = field(default_factory=FakeVectors)
    search: FakeSearch = field(default_factory=FakeSearch)
    reranker: FakeReranker = field(default_factory=FakeReranker)
    generator: FakeGenerator = field(default_factory=FakeGenerator)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    tracing: Tracing = field(default_factory=lambda: Tracing(None))
    policy: Policy = field(default_factory=lambda: Policy("documents", 2.0, 30, 10))

    def __post_init__(self) -> None:
        self.metrics = GatewayMetrics(self.registry)
        self.pipeline = self.joined(self.policy)

    def joined(self, policy: Policy) -> Pipeline:
        return Pipeline(
            vectors=self.vectors,
            search=self.search,
            reranker=self.reranker,
            generator=self.generator,
            policy=policy,
            metrics=self.metrics,
            tracing=self.tracing,
        )
