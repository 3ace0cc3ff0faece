"""The three workers as the gateway sees them: plain types in, plain types out.

The only file of the gateway that knows the stubs. Channels come from
`runtime.channel.open_channel`, whose interceptors raise `ServiceError`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import grpc
import numpy as np
import numpy.typing as npt
from rag.embedder.v1 import embedder_pb2, embedder_pb2_grpc
from rag.generator.v1 import generator_pb2, generator_pb2_grpc
from rag.reranker.v1 import reranker_pb2, reranker_pb2_grpc

from runtime.deadline import REPORT_MARGIN_S, Deadline
from runtime.errors import Reason, ServiceError
from runtime.labels import model_label

EMBEDDER_SERVICE: Final = "rag.embedder.v1.EmbedderService"
RERANKER_SERVICE: Final = "rag.reranker.v1.RerankerService"
GENERATOR_SERVICE: Final = "rag.generator.v1.GeneratorService"

# A worker that went away is back, or replaced, within about this time.
RETRY_AFTER_S: Final = 1.0

InputType = Literal["query", "passage"]
Lane = Literal["interactive", "bulk"]


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What a worker has loaded. Two models are the same when their fingerprints are.

    dimension: length of a vector; 0 where the model makes none.
    max_tokens: longest input the model reads, in its own tokens.
    """

    name: str
    fingerprint: str
    dimension: int
    max_tokens: int

    def __str__(self) -> str:
        return model_label(self.name, self.fingerprint)


@dataclass(frozen=True, slots=True)
class Embeddings:
    """vectors: float32 [n, dimension], read-only; truncated: positions of the texts cut."""

    vectors: npt.NDArray[np.float32]
    truncated: frozenset[int]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Scores:
    """values: one per passage in request order, 0..1; truncated: positions of passages cut."""

    values: list[float]
    truncated: frozenset[int]


@dataclass(frozen=True, slots=True)
class Passage:
    """text: what the model reads; title: shown beside it when not empty."""

    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class AnswerSpan:
    """Characters [start, end) of the text of a passage (0-based) where the answer stands."""

    passage: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Completion:
    """How an answer came about; the last thing a generator sends.

    fallback: the language model failed and the extractive engine answered.
    answered: False when the passages do not answer the question.
    spans: none lies outside of its passage's text.
    """

    engine: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    fallback: bool
    answered: bool
    passages_truncated: bool
    spans: tuple[AnswerSpan, ...] = ()


class _ClientOfModel:
    """Remembers which model its worker has loaded."""

    # As last seen, without asking.
    known_model: ModelIdentity | None = None

    def forget_model(self) -> None:
        """Makes the next `model` ask again: after a mismatch or a reconnect."""
        self.known_model = None


class EmbedderClient(_ClientOfModel):
    """Texts to vectors."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = embedder_pb2_grpc.EmbedderServiceStub(channel)

    async def model(self, deadline: Deadline) -> ModelIdentity:
        """The loaded model; asked once, then remembered until `forget_model`.

        Raises ServiceError EMBEDDER_UNAVAILABLE, DEADLINE_EXCEEDED or MODEL_FAILED.
        """
        if self.known_model is None:
            try:
                answer = await self._stub.GetModel(
                    embedder_pb2.GetModelRequest(), timeout=deadline.share_s()
                )
            except ServiceError as error:
                raise _seen(error, Reason.EMBEDDER_UNAVAILABLE, "embedder") from error
            if not answer.fingerprint or not answer.dimension:
                raise _nonsense("embedder")
            self.known_model = ModelIdentity(
                answer.name, answer.fingerprint, answer.dimension, answer.max_tokens
            )
        return self.known_model

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
        """One vector per text in request order, all of them or an error.

        fingerprint: of the model counted on; empty takes any. In the bulk lane a full
        queue is waited for while the budget lasts.
        Raises ServiceError EMBEDDER_UNAVAILABLE, QUEUE_FULL, DEADLINE_EXCEEDED,
        MODEL_MISMATCH, MODEL_FAILED, INVALID_ARGUMENT or TEXT_TOO_LONG.
        """
        request = embedder_pb2.EmbedTextsRequest(
            texts=texts,
            input_type=_INPUT_TYPES[input_type],
            lane=_LANES[lane],
            truncate=truncate,
            expected_fingerprint=fingerprint,
        )
        while True:
            try:
                answer = await self._stub.EmbedTexts(request, timeout=deadline.share_s())
                break
            except ServiceError as error:
                if error.reason is Reason.MODEL_MISMATCH:
                    self.forget_model()
                if lane != "bulk" or error.reason is not Reason.QUEUE_FULL:
                    raise _seen(error, Reason.EMBEDDER_UNAVAILABLE, "embedder") from error
                # Jitter: loads that were refused together must not come back together.
                jitter = random.uniform(1.0, 1.5)  # noqa: S311
                pause_s = (error.retry_after_s or RETRY_AFTER_S) * jitter
                if deadline.remaining_s() <= pause_s + REPORT_MARGIN_S:
                    raise
            await asyncio.sleep(pause_s)
        return _embeddings(answer, len(texts), fingerprint)


class RerankerClient(_ClientOfModel):
    """How well passages answer a query."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = reranker_pb2_grpc.RerankerServiceStub(channel)

    async def model(self, deadline: Deadline) -> ModelIdentity:
        """The loaded model; asked once, then remembered until `forget_model`.

        Raises ServiceError RERANKER_UNAVAILABLE, DEADLINE_EXCEEDED or MODEL_FAILED.
        """
        if self.known_model is None:
            try:
                answer = await self._stub.GetModel(
                    reranker_pb2.GetModelRequest(), timeout=deadline.share_s()
                )
            except ServiceError as error:
                raise _seen(error, Reason.RERANKER_UNAVAILABLE, "reranker") from error
            self.known_model = ModelIdentity(answer.name, answer.fingerprint, 0, answer.max_tokens)
        return self.known_model

    async def score(
        self, query: str, passages: Sequence[str], *, fingerprint: str = "", deadline: Deadline
    ) -> Scores:
        """One score per passage in request order, higher is better.

        Passages longer than the model reads are cut and named.
        Raises ServiceError RERANKER_UNAVAILABLE, QUEUE_FULL, DEADLINE_EXCEEDED,
        MODEL_MISMATCH, MODEL_FAILED or INVALID_ARGUMENT.
        """
        request = reranker_pb2.ScorePassagesRequest(
            query=query, passages=passages, truncate=True, expected_fingerprint=fingerprint
        )
        try:
            answer = await self._stub.ScorePassages(request, timeout=deadline.share_s())
        except ServiceError as error:
            if error.reason is Reason.MODEL_MISMATCH:
                self.forget_model()
            raise _seen(error, Reason.RERANKER_UNAVAILABLE, "reranker") from error
        values = list(answer.scores)
        # A NaN compares unequal to everything, so the range test refuses it too.
        if len(values) != len(passages) or not all(0.0 <= value <= 1.0 for value in values):
            raise _nonsense("reranker")
        return Scores(values, frozenset(answer.truncated))


class GeneratorClient:
    """An answer to a question from passages."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = generator_pb2_grpc.GeneratorServiceStub(channel)

    async def answer(
        self,
        question: str,
        passages: Sequence[Passage],
        *,
        temperature: float | None,
        max_tokens: int | None,
        deadline: Deadline,
    ) -> AsyncGenerator[str | Completion, None]:
        """Pieces of the answer as they are made, then one `Completion`.

        Citation [n] in the answer means passages[n - 1]. Closing the generator cancels
        the call, which stops the model.
        Raises ServiceError GENERATOR_UNAVAILABLE, QUEUE_FULL, DEADLINE_EXCEEDED,
        MODEL_FAILED or INVALID_ARGUMENT.
        """
        request = generator_pb2.GenerateAnswerRequest(
            question=question,
            passages=[generator_pb2.Passage(text=p.text, title=p.title) for p in passages],
            temperature=temperature,
            max_tokens=max_tokens,
        )
        call = self._stub.GenerateAnswer(request, timeout=deadline.share_s())
        completion: Completion | None = None
        try:
            async for message in call:
                if completion is not None:
                    raise _nonsense("generator")
                if message.WhichOneof("event") == "text_delta":
                    yield message.text_delta
                else:
                    completion = _completion(message.completion, passages)
        except ServiceError as error:
            raise _seen(error, Reason.GENERATOR_UNAVAILABLE, "generator") from error
        finally:
            call.cancel()
        if completion is None:
            raise _nonsense("generator")
        yield completion


_INPUT_TYPES: Final[dict[InputType, embedder_pb2.InputType.ValueType]] = {
    "query": embedder_pb2.INPUT_TYPE_QUERY,
    "passage": embedder_pb2.INPUT_TYPE_PASSAGE,
}
_LANES: Final[dict[Lane, embedder_pb2.Lane.ValueType]] = {
    "interactive": embedder_pb2.LANE_INTERACTIVE,
    "bulk": embedder_pb2.LANE_BULK,
}
_GONE: Final = frozenset({Reason.UNAVAILABLE, Reason.MODEL_LOADING, Reason.DRAINING})


def _embeddings(
    answer: embedder_pb2.EmbedTextsResponse, count: int, fingerprint: str
) -> Embeddings:
    """The answer as an array, checked: a wrong vector in the store would never be noticed."""
    if not answer.dimension or len(answer.vectors) != count * answer.dimension * 4:
        raise _nonsense("embedder")
    vectors = np.frombuffer(answer.vectors, dtype="<f4").reshape(count, answer.dimension)
    if not np.isfinite(vectors).all() or (fingerprint and answer.fingerprint != fingerprint):
        raise _nonsense("embedder")
    return Embeddings(vectors, frozenset(answer.truncated), answer.fingerprint)


def _completion(message: generator_pb2.Completion, passages: Sequence[Passage]) -> Completion:
    for span in message.spans:
        passage = passages[span.passage].text if span.passage < len(passages) else ""
        if not span.start < span.end <= len(passage):
            raise _nonsense("generator")
    return Completion(
        engine=message.engine,
        model=message.model,
        prompt_tokens=message.prompt_tokens,
        completion_tokens=message.completion_tokens,
        fallback=message.fallback,
        answered=message.answered,
        passages_truncated=message.passages_truncated,
        spans=tuple(AnswerSpan(span.passage, span.start, span.end) for span in message.spans),
    )


def _seen(error: ServiceError, unavailable: Reason, worker: str) -> ServiceError:
    """The worker's error as the gateway tells it: which worker is gone, or failed inside."""
    if error.reason in _GONE:
        message = f"The {worker} cannot be reached at the moment."
        return ServiceError(unavailable, message, error.retry_after_s or RETRY_AFTER_S)
    if error.reason is Reason.INTERNAL:
        return ServiceError(Reason.MODEL_FAILED, f"The {worker} failed inside.")
    return error


def _nonsense(worker: str) -> ServiceError:
    message = f"The {worker} gave an answer that cannot be right."
    return ServiceError(Reason.MODEL_FAILED, message)
