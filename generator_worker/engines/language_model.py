"""Answers by a language model, as a DSPy program over any OpenAI-compatible server.

Imported only when `LM_MODEL` is set: importing DSPy takes half a second.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import dspy

from generator_worker.admission import Admission
from generator_worker.citations import AnswerText
from generator_worker.engines.base import AnswerRequest, Completion, is_no_answer
from generator_worker.prompt import INSTRUCTIONS, Prompt, build_prompt
from runtime.deadline import Deadline, expired
from runtime.errors import Reason, ServiceError

log = logging.getLogger(__name__)

ENGINE: Final = "dspy"
# Pieces that may wait for a slow reader; then the model's own stream is not read on.
MAX_PENDING: Final = 256
# How long a cancelled call may take to close its connection.
CLOSE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class LanguageModel:
    """Which model, and how to use it.

    name: "provider/model"; api_base, api_key: None takes the provider's own.
    temperature: None sends none, as some models refuse any.
    context_tokens: prompt and answer together; max_tokens: the longest answer.
    first_token_s, next_token_s: longest silence before and after the first sign of life.
    reserve_s: what a call must leave of its budget while nothing was answered yet.
    """

    name: str
    api_base: str | None
    api_key: str | None
    temperature: float | None
    context_tokens: int
    max_tokens: int
    first_token_s: float
    next_token_s: float
    reserve_s: float


class AnswerAdapter(dspy.ChatAdapter):  # type: ignore[misc]
    """The instructions as they are, the inputs under plain headings, and the whole completion
    as the answer: it streams as it comes, from models too small to keep to a format too."""

    def format_system_message(self, signature: Any) -> str:
        """The signature's instructions."""
        return str(signature.instructions)

    def format_user_message_content(
        self,
        signature: Any,
        inputs: dict[str, Any],
        prefix: str = "",
        suffix: str = "",
        main_request: bool = False,
    ) -> str:
        """The passages, then the question: models heed best what comes last."""
        return f"Passages:\n{inputs['passages']}\n\nQuestion: {inputs['question']}"

    def format_assistant_message_content(
        self, signature: Any, outputs: dict[str, Any], missing_field_message: str | None = None
    ) -> str:
        """An example's answer."""
        return str(outputs["answer"])

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """The completion is the answer."""
        return {"answer": completion}


class LanguageModelEngine:
    """One call of the model an answer, streamed; no retries, no caches."""

    def __init__(self, model: LanguageModel, admission: Admission) -> None:
        self._model = model
        self._admission = admission
        # Its lines are not ours to shape, and may quote questions.
        dspy.disable_logging()
        # The whole completion is the answer, so there is nothing to retry in another format.
        self._adapter = AnswerAdapter(use_json_adapter_fallback=False)
        self._lm = dspy.LM(
            model.name,
            engine="lm15",
            cache=False,
            num_retries=0,
            # A bound below ours, should ours fail.
            timeout=model.first_token_s + model.next_token_s,
            **_given(api_base=model.api_base, api_key=model.api_key),
        )
        signature = dspy.Signature("question: str, passages: str -> answer: str", INSTRUCTIONS)
        self._stream = dspy.streamify(dspy.Predict(signature), is_async_program=True)

    async def start(self) -> str:
        """Nothing is loaded; the server is not asked, it may come later."""
        where = " at LM_API_BASE" if self._model.api_base else ""
        return f"{self._model.name}{where} via DSPy"

    async def close(self) -> None:
        """Closes the connections."""
        await self._lm.aclose()

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[str | Completion, None]:
        """Pieces as the model writes them.

        Raises ServiceError TEXT_TOO_LONG, QUEUE_FULL, DEADLINE_EXCEEDED, and MODEL_FAILED
        when the model fails, stalls or refuses.
        """
        model = self._model
        max_tokens = min(request.max_tokens or model.max_tokens, model.context_tokens // 2)
        prompt = build_prompt(
            request.question,
            request.passages,
            context_tokens=model.context_tokens,
            answer_tokens=max_tokens,
        )
        config = _given(
            temperature=model.temperature if request.temperature is None else request.temperature,
            max_tokens=max_tokens,
        )
        admitted_by = request.deadline.sooner(math.inf, reserve_s=model.reserve_s)
        async with self._admission.place(admitted_by):
            call = _Call(model, request.deadline)
            call.start(self._run(prompt, config, call))
            try:
                text = AnswerText(prompt.shown)
                written = 0
                while (piece := await call.next()) is not None:
                    written += bool(piece)
                    # A piece is a token or more; not every server knows the limit it was sent.
                    if written > max_tokens:
                        break
                    if ready := text.push(piece):
                        call.answering = True
                        yield ready
                if rest := text.finish():
                    yield rest
            finally:
                await call.stop()
        if not text.text:
            raise _failed("gave no answer")
        yield self._completion(text.text, call.usage, prompt)

    async def _run(self, prompt: Prompt, config: dict[str, Any], call: _Call) -> None:
        """Reads the program's stream to its end: leaving it early would cancel the reader's
        own task. `dspy.context` holds for this task alone."""
        refused = False
        with dspy.context(
            lm=self._lm, adapter=self._adapter, track_usage=True, disable_history=True
        ):
            stream = self._stream(question=prompt.question, passages=prompt.passages, config=config)
            async for event in stream:
                if isinstance(event, dspy.Prediction):
                    call.usage = _usage(event)
                else:
                    choice = event.choices[0]
                    refused = refused or choice.finish_reason == "content_filter"
                    # Empty while the model reasons: a sign of life.
                    await call.put(choice.delta.get("content") or "")
        if refused:
            raise _Refused

    def _completion(self, answer: str, usage: tuple[int, int], prompt: Prompt) -> Completion:
        return Completion(
            ENGINE,
            self._model.name,
            answered=not is_no_answer(answer),
            prompt_tokens=usage[0],
            completion_tokens=usage[1],
            passages_truncated=prompt.truncated,
        )


class _Refused(Exception):
    """The server's content filter stopped the answer."""


class _Call:
    """One call of the model: a task that puts pieces, and a reader that waits so long."""

    def __init__(self, model: LanguageModel, deadline: Deadline) -> None:
        self._model = model
        self._deadline = deadline
        self._pieces: asyncio.Queue[str | Exception | None] = asyncio.Queue(MAX_PENDING)
        self._task: asyncio.Task[None] | None = None
        self._alive = False
        # (prompt, completion) tokens, as the server counts them; it may not.
        self.usage = (0, 0)
        # Whether text has reached the caller; then no other engine can answer any more.
        self.answering = False

    def start(self, run: Coroutine[Any, Any, None]) -> None:
        self._task = asyncio.create_task(self._watch(run))

    async def put(self, piece: str) -> None:
        await self._pieces.put(piece)

    async def next(self) -> str | None:
        """The next piece; None at the end. Raises ServiceError."""
        silence_s = self._model.next_token_s if self._alive else self._model.first_token_s
        reserve_s = 0.0 if self.answering else self._model.reserve_s
        left_s = self._deadline.remaining_s() - reserve_s
        try:
            async with asyncio.timeout(min(silence_s, left_s)):
                piece = await self._pieces.get()
        except TimeoutError:
            if left_s < silence_s and self.answering:
                raise expired() from None
            raise _failed("did not answer in time") from None
        self._alive = True
        if isinstance(piece, Exception):
            raise _translated(piece)
        return piece

    async def stop(self) -> None:
        """Cancels the task, which closes the connection to the model."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=CLOSE_S)

    async def _watch(self, run: Coroutine[Any, Any, None]) -> None:
        try:
            await run
        except Exception as error:
            await self._pieces.put(error)
        else:
            await self._pieces.put(None)


def _translated(error: Exception) -> ServiceError:
    """What the caller may know of it. The model's own words name hosts and parts of keys:
    they are neither passed on nor logged."""
    status = getattr(error, "status", None)
    log.warning(
        "the language model failed",
        extra={"error": type(error).__name__, "upstream_status": status},
    )
    if isinstance(error, _Refused):
        return _failed("refused to answer")
    return _failed("failed")


def _failed(how: str) -> ServiceError:
    return ServiceError(Reason.MODEL_FAILED, f"The language model {how}.")


def _usage(prediction: Any) -> tuple[int, int]:
    """(prompt, completion) tokens over all calls of the program."""
    prompt = completion = 0
    for usage in (prediction.get_lm_usage() or {}).values():
        with suppress(TypeError):  # a server may count in nulls
            prompt += int(usage.get("prompt_tokens", 0))
            completion += int(usage.get("completion_tokens", 0))
    return prompt, completion


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
