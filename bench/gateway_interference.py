"""The whole system: questions over REST, idle and while POST /index runs as fast as it can.

Each round starts a fresh system, indexes a tenth of the Rust book to have something to find, asks
for a while, indexes one half of the rest alone, then the other half while it asks; the next round
takes the halves the other way round. No question is asked twice, so that none is cached.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import uvloop

from bench import prepared, system
from bench.api import Api, connected
from bench.datasets import Document, rust_book
from bench.load import Reply, ask, post
from bench.options import Options

ROUNDS: Final = 2
IDLE_S: Final = 8.0
SEED: Final = 11
# Of the book, by characters: what is there before anybody asks.
FIRST_SHARE: Final = 0.1
# For trying things out: every so many documents of the book.
QUICK_STRIDE: Final = 8
# More than anybody asks in the minutes that it takes.
QUESTIONS: Final = 20_000
# In turn: the embedder and the store alone, and everything: reranking and the answer too.
KINDS: Final[tuple[tuple[str, str, dict[str, bool]], ...]] = (
    ("/search without reranking", "/search", {"rerank": False}),
    ("/query", "/query", {}),
)

Replies = dict[str, list[Reply]]


@dataclass(frozen=True, slots=True)
class Round:
    """idle, loaded: replies by kind of request; alone_per_s, shared_per_s: chunks indexed a second.

    alone: /index without questions; shared: with them.
    """

    idle: Replies
    loaded: Replies
    alone_per_s: float
    shared_per_s: float


def measure(options: Options) -> list[Round]:
    """The rounds, each on a system of its own."""
    book = rust_book(options.data)[:: QUICK_STRIDE if options.quick else 1]
    first, *halves = divided(book)
    asked = iter(prepared.questions(options.data, QUESTIONS))
    rounds = []
    for turn in range(options.rounds(ROUNDS)):
        parts = (first, *(halves if turn % 2 == 0 else reversed(halves)))
        with system.running() as running:
            rounds.append(uvloop.run(_round(running, parts, asked, options.seconds(IDLE_S))))
    return rounds


def divided(book: Sequence[Document]) -> tuple[list[Document], list[Document], list[Document]]:
    """A tenth and two halves of the rest, by characters, drawn once."""
    drawn = random.Random(SEED).sample(book, len(book))
    wanted = FIRST_SHARE * sum(len(document.text) for document in book)
    parts: tuple[list[Document], list[Document], list[Document]] = ([], [], [])
    sizes = [0, 0, 0]
    for document in drawn:
        part = 0 if sizes[0] < wanted else 1 if sizes[1] <= sizes[2] else 2
        parts[part].append(document)
        sizes[part] += len(document.text)
    return parts


async def _round(
    running: system.System,
    parts: Sequence[Sequence[Document]],
    asked: Iterator[str],
    idle_s: float,
) -> Round:
    """parts: what is indexed before, without questions, and with them."""
    first, alone, shared = parts
    address = running.address
    async with connected(running.url) as api:
        await api.index(first)
        end_s = time.perf_counter() + idle_s
        idle = await ask(address, _requests(address, asked), lambda: time.perf_counter() >= end_s)
        alone_per_s = await _chunks_per_s(api, alone)
        indexing = asyncio.create_task(_chunks_per_s(api, shared))
        loaded = await ask(address, _requests(address, asked), indexing.done)
        return Round(by_kind(idle), by_kind(loaded), alone_per_s, await indexing)


def _requests(address: tuple[str, int], asked: Iterator[str]) -> Iterator[bytes]:
    """The kinds in turn, each with a question of its own."""
    for (_, path, rest), question in zip(itertools.cycle(KINDS), asked, strict=False):
        yield post(address, path, {"query": question} | rest)


def by_kind(replies: Sequence[Reply]) -> Replies:
    """What `_requests` alternates, told apart again."""
    return {name: list(replies[start :: len(KINDS)]) for start, (name, *_) in enumerate(KINDS)}


async def _chunks_per_s(api: Api, documents: Sequence[Document]) -> float:
    started_s = time.perf_counter()
    answer = await api.index(documents)
    return float(answer["chunks"]) / (time.perf_counter() - started_s)
