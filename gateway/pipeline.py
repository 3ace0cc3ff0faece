"""One question, from text to answer: the whole story, and every way it degrades."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from gateway.answers import Source, StageScores
from gateway.clients import Completion, ModelIdentity, Passage, Scores
from gateway.diversity import diverse, looked_at
from gateway.fusion import fuse
from gateway.metrics import GatewayMetrics
from gateway.schemas import QueryRequest, SearchRequest
from gateway.search.filters import Filter, parse_filter
from gateway.search.types import Hit, Mode, Model, Stamp
from gateway.text import normalise
from runtime.answers import NO_ANSWER
from runtime.deadline import Deadline
from runtime.errors import Reason, ServiceError
from runtime.labels import model_label
from runtime.telemetry import Tracing

Degradation = Literal["dense", "query_truncated", "rerank", "generate"]

# A stage that has a fallback gets at most this part of what is left, whatever its own limit.
SHARE_OF_A_STAGE: Final = 0.5

_EMBEDDER_LOST: Final = frozenset({Reason.EMBEDDER_UNAVAILABLE, Reason.DEADLINE_EXCEEDED})
_RERANKER_LOST: Final = frozenset(
    {Reason.RERANKER_UNAVAILABLE, Reason.QUEUE_FULL, Reason.DEADLINE_EXCEEDED}
)


@dataclass(frozen=True, slots=True)
class QuestionVector:
    """vector: float32 [dimension]; cut: the question was longer than the model reads."""

    vector: npt.NDArray[np.float32]
    cut: bool
    cache_hit: bool


class Vectors(Protocol):
    """Where a question's vector comes from."""

    async def question(self, text: str, fingerprint: str, deadline: Deadline) -> QuestionVector:
        """The vector of normalised text by the model of that fingerprint."""


class Retriever(Protocol):
    """The part of the store that a question needs."""

    async def stamp(self, collection: str, deadline: Deadline) -> Stamp:
        """What the collection was made with."""

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
        """Passages, best first, of the generation that `stamp` is of.

        fingerprint: of the model that made the vector; another's is MODEL_MISMATCH.
        """


class Reranker(Protocol):
    """The part of the reranker that a question needs."""

    @property
    def known_model(self) -> ModelIdentity | None:
        """The model as last seen."""

    async def score(self, query: str, passages: Sequence[str], *, deadline: Deadline) -> Scores:
        """One score per passage."""


class Generator(Protocol):
    """The part of the generator that a question needs."""

    def answer(
        self,
        question: str,
        passages: Sequence[Passage],
        *,
        temperature: float | None,
        max_tokens: int | None,
        deadline: Deadline,
    ) -> AsyncGenerator[str | Completion, None]:
        """Pieces of text, then the completion."""


@dataclass(frozen=True, slots=True)
class Policy:
    """rerank_fusion_k: None takes the reranker's order alone.

    passages_per_document: 0 shows the best passages, whichever documents they are of.
    """

    default_collection: str
    rerank_timeout_s: float
    rerank_candidates: int
    rerank_fusion_k: int | None
    passages_per_document: int = 0


@dataclass(slots=True)
class Found:
    """The passages for a question, and how they were come by."""

    question: str
    sources: list[Source] = field(default_factory=list)
    embedder: str | None = None
    reranker: str | None = None
    cache_hit: bool = False
    degraded: list[Degradation] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of an answer. completion: None when no generator was called."""

    found: Found
    completion: Completion | None


class Pipeline:
    """Questions to passages to answers."""

    def __init__(
        self,
        *,
        vectors: Vectors,
        search: Retriever,
        reranker: Reranker,
        generator: Generator,
        policy: Policy,
        metrics: GatewayMetrics,
        tracing: Tracing,
    ) -> None:
        self._vectors = vectors
        self._search = search
        self._reranker = reranker
        self._generator = generator
        self._policy = policy
        self._metrics = metrics
        self._tracing = tracing

    async def answer_query(
        self, ask: QueryRequest, budget: Deadline
    ) -> AsyncGenerator[Found | str | Finished, None]:
        """The passages as soon as they are known, the answer in pieces, then its end.

        Raises ServiceError for whatever cannot be done without.
        """
        found = await self.find_passages(ask, budget)
        yield found
        if not found.sources:
            yield NO_ANSWER
            yield Finished(found, None)
            return
        with self._stage("generate", found):
            pieces = self._generator.answer(
                found.question,
                [_passage(source) for source in found.sources],
                temperature=ask.temperature,
                max_tokens=ask.max_tokens,
                deadline=budget,
            )
            completion: Completion | None = None
            async with aclosing(pieces):
                async for piece in pieces:
                    if isinstance(piece, Completion):
                        completion = piece
                    else:
                        yield piece
        if completion is not None and completion.fallback:
            self._degrade(found, "generate")
        yield Finished(found, completion)

    async def find_passages(self, ask: SearchRequest | QueryRequest, budget: Deadline) -> Found:
        """The best `top_k` passages, by as many stages as could run."""
        found = Found(normalise(ask.query))
        where = parse_filter(ask.filter) if ask.filter else None
        collection = ask.collection or self._policy.default_collection
        stamp = await self._search.stamp(collection, budget)
        if stamp.model is None:
            return found  # nothing was ever written

        vector: npt.NDArray[np.float32] | None = None
        if ask.mode != "sparse":
            with self._stage("embed", found):
                vector = await self._vector(found, stamp.model, ask.mode, budget)
        per_document = self._policy.passages_per_document
        wanted = looked_at(ask.top_k, per_document)
        if ask.rerank:
            wanted = max(wanted, self._policy.rerank_candidates)
        with self._stage("search", found):
            hits = await self._search.nearest(
                collection,
                text=found.question,
                vector=vector,
                mode=ask.mode,
                filter=where,
                limit=wanted,
                deadline=budget,
                # That generation may be gone, and the live one be another model's.
                fingerprint=stamp.model.fingerprint,
                stamp=stamp,
            )
        if ask.rerank and hits:
            with self._stage("rerank", found):
                scored = max(ask.top_k, self._policy.rerank_candidates)
                hits = diverse(hits, scored, per_document)
                sources = await self._reranked(found, hits, budget)
        else:
            sources = _unranked(hits)
        found.sources = diverse(sources, ask.top_k, per_document)
        return found

    async def _vector(
        self, found: Found, model: Model, mode: Mode, budget: Deadline
    ) -> npt.NDArray[np.float32] | None:
        """The question's vector; None where BM25 alone has to do."""
        hybrid = mode == "hybrid"
        deadline = budget.sooner(budget.remaining_s() * SHARE_OF_A_STAGE) if hybrid else budget
        try:
            made = await self._vectors.question(found.question, model.fingerprint, deadline)
        except ServiceError as error:
            if hybrid and error.reason in _EMBEDDER_LOST:
                self._degrade(found, "dense")
                return None
            if error.reason is Reason.MODEL_MISMATCH:
                label = model_label(model.name, model.fingerprint)
                message = f"The collection's model is {label}. {error.message}"
                raise ServiceError(error.reason, message) from error
            raise _about_the_query(error) from error
        found.embedder = model_label(model.name, model.fingerprint)
        found.cache_hit = made.cache_hit
        if made.cut:
            self._degrade(found, "query_truncated")
        return made.vector

    async def _reranked(self, found: Found, hits: Sequence[Hit], budget: Deadline) -> list[Source]:
        """The hits in their final order, or in that of retrieval if the reranker is lost."""
        limit_s = min(self._policy.rerank_timeout_s, budget.remaining_s() * SHARE_OF_A_STAGE)
        try:
            scores = await self._reranker.score(
                found.question, [hit.text for hit in hits], deadline=budget.sooner(limit_s)
            )
        except ServiceError as error:
            if error.reason in _RERANKER_LOST:
                self._degrade(found, "rerank")
                return _unranked(hits)
            raise _about_the_query(error) from error
        if (model := self._reranker.known_model) is not None:
            found.reranker = str(model)
        documents = [hit.document_id for hit in hits]
        order = fuse(scores.values, documents, self._policy.rerank_fusion_k)
        return [_source(hits[at], score, scores.values[at]) for at, score in order]

    def _degrade(self, found: Found, stage: Degradation) -> None:
        found.degraded.append(stage)
        self._metrics.degraded(stage)

    @contextmanager
    def _stage(self, name: str, found: Found) -> Iterator[None]:
        """Times a stage, successful or not, in the answer, the metrics and the trace."""
        started_s = time.perf_counter()
        try:
            with self._tracing.stage(name):
                yield
        finally:
            elapsed_s = time.perf_counter() - started_s
            found.timings_ms[name] = round(elapsed_s * 1000, 3)
            self._metrics.stage(name, elapsed_s)


def _source(hit: Hit, score: float, rerank: float | None) -> Source:
    return Source(
        id=hit.chunk_id,
        document_id=hit.document_id,
        chunk=hit.ordinal,
        text=hit.text,
        score=score,
        scores=StageScores(hit.dense, hit.sparse, rerank),
        metadata=hit.metadata,
    )


def _unranked(hits: Sequence[Hit]) -> list[Source]:
    return [_source(hit, hit.score, None) for hit in hits]


def _passage(source: Source) -> Passage:
    title = source.metadata.get("title")
    return Passage(source.text, title if isinstance(title, str) else "")


def _about_the_query(error: ServiceError) -> ServiceError:
    """A worker that refuses a text means the query: it was sent no other."""
    if error.reason in (Reason.INVALID_ARGUMENT, Reason.TEXT_TOO_LONG):
        return ServiceError(error.reason, error.message, field="query")
    return error
