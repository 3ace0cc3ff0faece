"""The RPC, and the only file of the worker that knows the stubs."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Final

import grpc
from rag.generator.v1 import generator_pb2, generator_pb2_grpc

from generator_worker.engines.base import AnswerRequest, Completion, Engine, Passage
from generator_worker.metrics import GeneratorMetrics
from runtime.deadline import REPORT_MARGIN_S, Deadline
from runtime.errors import Reason, ServiceError

SERVICE_NAME: Final = generator_pb2.DESCRIPTOR.services_by_name["GeneratorService"].full_name
METHODS: Final = ("GenerateAnswer",)

# Far above what the gateway sends (8,192 and 50): bounds for any caller.
MAX_QUESTION_CHARACTERS: Final = 65_536
MAX_PASSAGES: Final = 200


class GeneratorService(generator_pb2_grpc.GeneratorServiceServicer):
    """Checks, decodes, and hands on to the engine."""

    def __init__(self, engine: Engine, metrics: GeneratorMetrics, default_timeout_s: float) -> None:
        self._engine = engine
        self._metrics = metrics
        self._default_timeout_s = default_timeout_s

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the service."""
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(self, server)

    async def GenerateAnswer(
        self,
        request: generator_pb2.GenerateAnswerRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[generator_pb2.GenerateAnswerResponse]:
        """Pieces, then the completion; closing it (the caller left) stops the model."""
        started_s = time.monotonic()
        first = True
        asked = _decode(request, self._deadline(context))
        async with aclosing(self._engine.answer(asked)) as events:
            async for event in events:
                took_s = time.monotonic() - started_s
                if isinstance(event, Completion):
                    self._metrics.observe(event, took_s)
                    yield generator_pb2.GenerateAnswerResponse(completion=_encode(event))
                    continue
                if first:
                    self._metrics.observe_first_text(took_s)
                    first = False
                yield generator_pb2.GenerateAnswerResponse(text_delta=event)

    def _deadline(self, context: grpc.aio.ServicerContext[Any, Any]) -> Deadline:
        remaining_s = context.time_remaining()
        if remaining_s is None:
            return Deadline.after(self._default_timeout_s)
        return Deadline.after(remaining_s - REPORT_MARGIN_S)


def _decode(request: generator_pb2.GenerateAnswerRequest, deadline: Deadline) -> AnswerRequest:
    """Raises ServiceError INVALID_ARGUMENT that names the field."""
    if not request.question.strip():
        raise _invalid("question", "The question is empty.")
    if len(request.question) > MAX_QUESTION_CHARACTERS:
        raise _invalid("question", f"At most {MAX_QUESTION_CHARACTERS} characters are read.")
    if not 1 <= len(request.passages) <= MAX_PASSAGES:
        raise _invalid("passages", f"Between 1 and {MAX_PASSAGES} passages are read.")
    for index, passage in enumerate(request.passages):
        if not passage.text.strip():
            raise _invalid(f"passages[{index}].text", "The passage is empty.")
    temperature = request.temperature if request.HasField("temperature") else None
    if temperature is not None and not (math.isfinite(temperature) and 0 <= temperature <= 2):
        raise _invalid("temperature", "The temperature must be between 0 and 2.")
    max_tokens = request.max_tokens if request.HasField("max_tokens") else None
    if max_tokens == 0:
        raise _invalid("max_tokens", "An answer has at least one token.")
    return AnswerRequest(
        question=request.question,
        passages=tuple(Passage(p.text, p.title) for p in request.passages),
        deadline=deadline,
        # A float32 on the wire: 0.3 would reach the model as 0.30000001192092896.
        temperature=None if temperature is None else round(temperature, 6),
        max_tokens=max_tokens,
    )


def _encode(completion: Completion) -> generator_pb2.Completion:
    return generator_pb2.Completion(
        engine=completion.engine,
        model=completion.model,
        prompt_tokens=completion.prompt_tokens,
        completion_tokens=completion.completion_tokens,
        fallback=completion.fallback,
        answered=completion.answered,
        passages_truncated=completion.passages_truncated,
        spans=[
            generator_pb2.AnswerSpan(passage=span.passage, start=span.start, end=span.end)
            for span in completion.spans
        ],
    )


def _invalid(field: str, message: str) -> ServiceError:
    return ServiceError(Reason.INVALID_ARGUMENT, message, field=field)
