"""The language model first, the passages' own sentences when it fails."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Final

from generator_worker.engines.base import AnswerRequest, Completion, Engine
from runtime.errors import Reason, ServiceError

log = logging.getLogger(__name__)

# The caller's own fault, or a load that another replica may take: not the model's failure.
_PASSED_ON: Final = frozenset({Reason.INVALID_ARGUMENT, Reason.TEXT_TOO_LONG, Reason.QUEUE_FULL})


class FallbackEngine:
    """Answers by `first`; by `second` if that fails before it has said anything.

    After the first piece there is no way back: the failure is the caller's to see.
    """

    def __init__(self, first: Engine, second: Engine, on_fallback: Callable[[], None]) -> None:
        self._first = first
        self._second = second
        self._on_fallback = on_fallback

    async def start(self) -> str:
        """Starts both."""
        second = await self._second.start()
        return f"{await self._first.start()}; {second}"

    async def close(self) -> None:
        """Closes both."""
        try:
            await self._first.close()
        finally:
            await self._second.close()

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[str | Completion, None]:
        """As `Engine.answer`; the completion of the second says that it is one."""
        answering = False
        try:
            async with aclosing(self._first.answer(request)) as events:
                async for event in events:
                    answering = True
                    yield event
            return
        except ServiceError as error:
            if answering or error.reason in _PASSED_ON:
                raise
            log.warning("fell back", extra={"reason": error.reason, "cause": error.message})
        self._on_fallback()
        async with aclosing(self._second.answer(request)) as events:
            async for event in events:
                yield replace(event, fallback=True) if isinstance(event, Completion) else event
