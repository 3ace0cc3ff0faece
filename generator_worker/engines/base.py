"""What every engine takes and gives. No engine knows gRPC."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final, Protocol

from generator_worker.sentences import Place
from runtime.answers import NO_ANSWER
from runtime.deadline import Deadline

_CITATION: Final = re.compile(r"\s*\[\d+(?:\s*,\s*\d+)*\]")


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage; `title` may be empty."""

    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """A question and the passages, best first; citation [n] means `passages[n - 1]`.

    temperature: 0..2; None is the engine's own.
    max_tokens: longest answer in the model's tokens; None is the engine's own.
    """

    question: str
    passages: tuple[Passage, ...]
    deadline: Deadline
    temperature: float | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """The last thing an engine says; fields as in generator.proto."""

    engine: str
    model: str
    answered: bool
    prompt_tokens: int = 0
    completion_tokens: int = 0
    fallback: bool = False
    passages_truncated: bool = False
    spans: tuple[Place, ...] = ()


class Engine(Protocol):
    """Writes answers."""

    async def start(self) -> str:
        """Loads and warms; returns what is loaded, for the start-up line."""

    def answer(self, request: AnswerRequest) -> AsyncGenerator[str | Completion, None]:
        """Pieces of the answer, none empty, then exactly one `Completion`.

        Closing the generator stops the model. Raises ServiceError, also after pieces.
        """

    async def close(self) -> None:
        """Releases what `start` took."""


def is_no_answer(answer: str) -> bool:
    """Whether the answer is the no-answer sentence, citations and quotes around it aside."""
    return _bare(answer) == _bare(NO_ANSWER)


def _bare(text: str) -> str:
    return " ".join(_CITATION.sub("", text).split()).strip("\"'“”*.! ").casefold()
