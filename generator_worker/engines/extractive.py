"""Answers with the passages' own sentences, word for word, each with its citation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from itertools import permutations
from typing import Final, Protocol

import numpy as np

from generator_worker.engines.base import AnswerRequest, Completion, Passage
from generator_worker.prompt import estimate_tokens
from generator_worker.selection import (
    Chosen,
    Sentence,
    Vectors,
    choose,
    content_words,
    opening_worth,
    overlap,
    relevance,
)
from generator_worker.sentences import Excerpt, forms, is_question, join, split_sentences
from runtime.answers import NO_ANSWER
from runtime.deadline import Deadline, expired

ENGINE: Final = "extractive"


class SentenceEncoder(Protocol):
    """The embedding model, as far as this engine needs it."""

    @property
    def name(self) -> str:
        """Name of the model."""

    async def start(self) -> str:
        """Loads and warms; returns what is loaded in a few words."""

    async def embed(
        self, question: str, sentences: Sequence[str], deadline: Deadline
    ) -> tuple[Vectors, Vectors]:
        """Unit vectors of the question, float32 [d], and of the sentences, float32 [n, d].

        Refuses with ServiceError what it cannot finish in time.
        """

    async def close(self) -> None:
        """Releases the model."""


class ExtractiveEngine:
    """Chooses the sentences by the embedding model; says so when none answers.

    why: the reason this engine is there, for the start-up line.
    threshold: a best sentence that scores lower is no answer (`bench/answer_threshold.py`).
    most_sentences: the answer's length; most_read: sentences embedded for one question.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        *,
        why: str,
        threshold: float,
        most_sentences: int,
        most_read: int,
    ) -> None:
        self._encoder = encoder
        self._why = why
        self._threshold = threshold
        self._most_sentences = most_sentences
        self._most_read = most_read

    async def start(self) -> str:
        """Loads the embedding model."""
        return f"{ENGINE} over {await self._encoder.start()} ({self._why})"

    async def close(self) -> None:
        """Releases the embedding model."""
        await self._encoder.close()

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[str | Completion, None]:
        """One piece a sentence. Temperature means nothing here; no language model's tokens
        are used, so the completion counts none."""
        try:
            async with asyncio.timeout(request.deadline.remaining_s()):
                # Markdown of 50 long passages takes tens of milliseconds.
                sentences = await asyncio.to_thread(read_sentences, request.passages)
                kept = most_promising(request.question, sentences, self._most_read)
                chosen = await self._choose(request, kept)
        except TimeoutError:
            raise expired() from None
        answered = False
        for piece in pieces(chosen.sentences, request.max_tokens):
            answered = True
            yield piece
        if not answered:
            yield NO_ANSWER
        yield Completion(
            ENGINE,
            self._encoder.name,
            answered,
            passages_truncated=len(kept) < len(sentences),
        )

    async def _choose(self, request: AnswerRequest, sentences: Sequence[Sentence]) -> Chosen:
        if not sentences:
            return Chosen((), -1.0)
        texts = [sentence.text for sentence in sentences]
        asked, read = await self._encoder.embed(request.question, texts, request.deadline)
        scores = relevance(request.question, asked, sentences, read)
        return choose(
            sentences,
            scores,
            read,
            most=self._most_sentences,
            threshold=self._threshold,
            opening=opening_worth(request.question, sentences),
        )


def read_sentences(passages: Sequence[Passage]) -> list[Sentence]:
    """All sentences that may answer, best passage first; one that came already (chunks
    overlap) only once, and one cut between two passages whole."""
    mended = mend([split_sentences(p.text, number) for number, p in enumerate(passages)])
    found = forms([[excerpt.text for excerpt in excerpts] for excerpts in mended])
    seen: set[str] = set()
    sentences: list[Sentence] = []
    for number, excerpts in enumerate(mended):
        for ordinal, (excerpt, form) in enumerate(zip(excerpts, found[number], strict=True)):
            key = excerpt.text.casefold()
            if key not in seen and not is_question(excerpt.text):
                seen.add(key)
                sentences.append(Sentence(number, ordinal, excerpt.text, form, excerpt.places))
    return sentences


def mend(passages: Sequence[Sequence[Excerpt]]) -> list[list[Excerpt]]:
    """The sentences of each passage; where the last of one goes on as the first of another,
    the whole takes the place of the beginning and the end is left out; of a beginning whose whole
    is there, nothing is left."""
    mended = [list(excerpts) for excerpts in passages]
    for head, tail in permutations(mended, 2):
        whole = join(head[-1].text, tail[0].text) if head and tail else None
        if whole is None:
            continue
        if whole == tail[0].text != head[-1].text:
            head.pop()
        else:
            rest = tail.pop(0)
            # Of a whole that was cut, what the tail holds may be gone.
            places = head[-1].places + rest.places if whole.endswith(rest.text) else ()
            head[-1] = Excerpt(whole, places)
    return mended


def most_promising(question: str, sentences: Sequence[Sentence], most: int) -> Sequence[Sentence]:
    """At most `most` of them: those that share the most words with the question, then those
    of better passages; in their old order."""
    if len(sentences) <= most:
        return sentences
    wanted = content_words(question)
    shares = np.array([overlap(wanted, s.text) for s in sentences])
    kept = np.argsort(-shares, kind="stable")[:most]
    return [sentences[i] for i in sorted(kept)]


def pieces(sentences: Sequence[Sentence], max_tokens: int | None) -> list[str]:
    """The sentences with their citations, as many as fit; the first is cut rather than left
    out, so that there is an answer."""
    out: list[str] = []
    left = max_tokens
    for sentence in sentences:
        text = sentence.text
        if left is not None:
            needed = estimate_tokens(text)
            if needed > left and out:
                break
            if needed > left:
                text = _cut(text, left)
            left -= needed
        out.append(f"{' ' if out else ''}{text} [{sentence.passage + 1}]")
    return out


def _cut(text: str, max_tokens: int) -> str:
    kept = text.split(" ")
    while len(kept) > 1 and estimate_tokens(" ".join(kept)) > max_tokens:
        kept.pop()
    return " ".join(kept) + "…"
