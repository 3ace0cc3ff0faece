"""What a reranker is given: the passages that retrieval finds for each question of a collection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from bench import metrics, system
from bench.api import Api, connected
from bench.concurrency import in_flight
from bench.datasets import Question, TestCollection, load
from bench.retrieval import HARMLESS, HYBRID, PATIENT, QUESTIONS_AT_ONCE

# No more than each stage finds by default (SEARCH_PREFETCH): with more, the fusion goes deeper
# and other passages come first than in a /query.
DEPTH: Final = 100
# The reranker of a /query with the default `top_k` sees the best passages, whichever documents
# they are of.
AS_RETRIEVED: Final = {"PASSAGES_PER_DOCUMENT": "0"}


@dataclass(frozen=True, slots=True)
class Candidates:
    """Those of one question.

    passages, documents: what the reranker sees, and the document of each, in retrieval's order.
    rest: the documents of the passages that follow.
    """

    query: str
    grades: dict[str, int]
    passages: tuple[str, ...]
    documents: tuple[str, ...]
    rest: tuple[str, ...]

    @property
    def best_order(self) -> list[int]:
        """Positions of the passages in the order that no other beats: by the grades."""
        return sorted(
            range(len(self.documents)), key=lambda at: -self.grades.get(self.documents[at], 0)
        )

    def ranking(self, order: Sequence[int]) -> list[str]:
        """The documents, each once, where the passages stand in this order and the rest behind."""
        return metrics.collapse([*(self.documents[at] for at in order), *self.rest])


def retrieve(data: Path, name: str, most: int) -> list[Candidates]:
    """The candidates of every question of the collection `name`, at most so many each.

    They come through POST /search of a system that holds the collection and nothing else.
    """
    collection = load(data, name)
    with system.running(PATIENT | AS_RETRIEVED) as running:
        return uvloop.run(_ask(running.url, collection, most))


async def _ask(url: str, collection: TestCollection, most: int) -> list[Candidates]:
    async with connected(url) as api:
        await api.index_all(collection.documents)
        return await in_flight(
            lambda question: _candidates(api, question, most),
            collection.questions,
            QUESTIONS_AT_ONCE,
        )


async def _candidates(api: Api, question: Question, most: int) -> Candidates:
    where = {"filter": question.filter} if question.filter else {}
    answer = await api.search(
        query=question.text, mode=HYBRID, rerank=False, top_k=max(DEPTH, most), **where
    )
    missing = set(answer["degraded"]) - HARMLESS
    sources = answer["sources"]
    if missing or not sources:
        raise RuntimeError(f"question {question.id}: {len(sources)} passages, without {missing}")
    documents = tuple(source["document_id"] for source in sources)
    return Candidates(
        question.text,
        question.grades,
        tuple(source["text"] for source in sources[:most]),
        documents[:most],
        documents[most:],
    )
