"""Answers with the passages' own sentences, word for word, each with its citation."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Final, Protocol

import numpy as np

from encoders.reading import Read
from generator_worker.engines.base import AnswerRequest, Completion, Passage
from generator_worker.evidence import (
    EMBEDDER,
    LEAST_MARKED,
    MOST_PASSAGES_READ,
    READER,
    Evidence,
    find_evidence,
    probabilities,
    unadorned,
)
from generator_worker.markdown import MAX_PASSAGE_CHARACTERS
from generator_worker.prompt import estimate_tokens
from generator_worker.selection import (
    Sentence,
    Vectors,
    choose,
    content_words,
    opening_worth,
    overlap,
    relevance,
)
from generator_worker.sentences import Excerpt, Place, forms, is_question, join, split_sentences
from runtime.answers import NO_ANSWER
from runtime.deadline import Deadline, expired

ENGINE: Final = "extractive"

log = logging.getLogger(__name__)


class SentenceEncoder(Protocol):
    """The embedding model, as far as this engine needs it."""

    @property
    def name(self) -> str:
        """Name of the model."""

    @property
    def fingerprint(self) -> str:
        """Tells models apart."""

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


class Reader(Protocol):
    """A model that reads passages for a question, as far as this engine needs it."""

    @property
    def name(self) -> str:
        """Name of the model."""

    @property
    def fingerprint(self) -> str:
        """Tells models apart."""

    async def start(self) -> str:
        """Loads and warms; returns what is loaded in a few words."""

    async def read(
        self, question: str, passages: Sequence[str], deadline: Deadline
    ) -> Sequence[Read]:
        """What it makes of each passage. Refuses with ServiceError as `SentenceEncoder.embed`."""

    async def close(self) -> None:
        """Releases the model."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The sentences of an answer, the best one first, and what the reader found in each."""

    sentences: tuple[Sentence, ...] = ()
    evidence: tuple[Evidence | None, ...] = ()


class ExtractiveEngine:
    """Chooses the sentences by the embedding model, and a reader if there is one; says so when
    none answers.

    why: the reason this engine is there, for the start-up line.
    threshold: a best sentence that scores lower is no answer (`bench/answer_threshold.py`);
        with a reader, one that is less probable (`bench/answer_evidence.py`).
    most_sentences: the answer's length; most_sentences_compared: those embedded for one
        question.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        reader: Reader | None = None,
        *,
        why: str,
        threshold: float,
        most_sentences: int,
        most_sentences_compared: int,
    ) -> None:
        self._encoder = encoder
        self._reader = reader
        self._why = why
        self._threshold = threshold
        self._most_sentences = most_sentences
        self._most_sentences_compared = most_sentences_compared

    async def start(self) -> str:
        """Loads the models."""
        loaded = await self._encoder.start()
        if self._reader is not None:
            loaded = f"{loaded} and {await self._reader.start()}"
            if (self._encoder.fingerprint, self._reader.fingerprint) != (EMBEDDER, READER):
                log.warning(
                    "what answers was measured with other models: fit the weights anew with "
                    "`python -m bench.answer_evidence`, or set READER_MODEL=none and "
                    "ANSWER_THRESHOLD to what `python -m bench.answer_threshold` finds",
                    extra={"embedder": self._encoder.name, "reader": self._reader.name},
                )
        return f"{ENGINE} over {loaded} ({self._why})"

    async def close(self) -> None:
        """Releases the models."""
        try:
            if self._reader is not None:
                await self._reader.close()
        finally:
            await self._encoder.close()

    async def answer(self, request: AnswerRequest) -> AsyncGenerator[str | Completion, None]:
        """One piece a sentence. Temperature means nothing here; no language model's tokens
        are used, so the completion counts none."""
        try:
            async with asyncio.timeout(request.deadline.remaining_s()):
                # Markdown of 50 long passages takes tens of milliseconds.
                sentences = await asyncio.to_thread(read_sentences, request.passages)
                kept = most_promising(request.question, sentences, self._most_sentences_compared)
                answer = await self._choose(request, kept)
        except TimeoutError:
            raise expired() from None
        said = pieces(answer.sentences, request.max_tokens)
        for piece in said or [NO_ANSWER]:
            yield piece
        yield Completion(
            ENGINE,
            self._model,
            answered=bool(said),
            passages_truncated=len(kept) < len(sentences),
            spans=marked(answer.evidence[: len(said)], request.passages),
        )

    @property
    def _model(self) -> str:
        name = self._encoder.name
        return name if self._reader is None else f"{name} and {self._reader.name}"

    async def _choose(self, request: AnswerRequest, sentences: Sequence[Sentence]) -> Answer:
        if not sentences:
            return Answer()
        texts = [sentence.text for sentence in sentences]
        asked, vectors = await self._encoder.embed(request.question, texts, request.deadline)
        scores = relevance(request.question, asked, sentences, vectors)
        opening: Vectors | None = None
        found: Sequence[Evidence | None] = [None] * len(sentences)
        if self._reader is None:
            opening = opening_worth(request.question, sentences)
        else:
            # No sentence comes from beyond it, and tokenising what is cut then takes time too.
            best = [
                passage.text[:MAX_PASSAGE_CHARACTERS]
                for passage in request.passages[:MOST_PASSAGES_READ]
            ]
            # One model after the other: each takes all threads.
            reads = await self._reader.read(request.question, best, request.deadline)
            # Of 192 sentences it takes 10 ms.
            found = await asyncio.to_thread(find_evidence, sentences, reads)
            scores = probabilities(scores, found)
        chosen = choose(
            sentences,
            scores,
            vectors,
            most=self._most_sentences,
            threshold=self._threshold,
            opening=opening,
        ).sentences
        of = dict(zip(sentences, found, strict=True))
        return Answer(chosen, tuple(of[sentence] for sentence in chosen))


def marked(evidence: Sequence[Evidence | None], passages: Sequence[Passage]) -> tuple[Place, ...]:
    """Where an answer stands: in those of its sentences where the reader leans to that."""
    places = {
        unadorned(one.place, passages[one.place.passage].text)
        for one in evidence
        if one is not None and one.score >= LEAST_MARKED
    }
    return tuple(sorted(places))


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
