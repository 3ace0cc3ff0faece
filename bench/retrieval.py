"""How good the passages are that the running system finds, against the judgements of people.

Everything goes through the API, chunking included: each collection is indexed in a fresh
system, its questions are asked in every mode, and the chunks that come back are collapsed to
documents by first occurrence.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import uvloop

from bench import metrics, system
from bench.api import Api, connected
from bench.datasets import COLLECTIONS, Question, TestCollection, load
from bench.options import Options
from bench.report import Report, Table, Target

NAMES: Final = (*COLLECTIONS, "rust-book")
# Passages asked for: the most that /search gives, so that 50 documents are among them.
DEPTH: Final = 200
# What the reranker sees by default (RERANK_CANDIDATES).
RERANKED: Final = 30
MODES: Final = ("dense", "sparse", "hybrid", "hybrid + rerank")
QUESTIONS_AT_ONCE: Final = 2
DOCUMENTS_A_REQUEST: Final = 500
# Quality must not depend on how busy the machine is: nothing may be left out for time.
PATIENT: Final = {"RERANK_TIMEOUT_SECONDS": "25"}
# Of a question longer than the model reads, which says something about the model.
HARMLESS: Final = frozenset({"query_truncated"})
# nDCG@10 on whole documents, measured with the same model before there was a system:
# dense, BM25, both fused (RRF, k = 10), and fused with the reranker's order.
WHOLE_DOCUMENTS: Final = {
    "cranfield": (0.513, 0.505, 0.561, 0.568),
    "cisi": (0.419, 0.364, 0.445, 0.452),
    "cacm": (0.410, 0.425, 0.497, 0.521),
}
# Figures are rounded to three places, and torch's bf16 moves the last of them.
ROUNDING: Final = 0.0015

Ranking = list[str]
Measure = Callable[[Sequence[str], dict[str, int]], float]
MEASURES: Final[dict[str, Measure]] = {
    "nDCG@10": lambda ranking, grades: metrics.ndcg(ranking, grades, 10),
    "recall@50": lambda ranking, grades: metrics.recall(ranking, grades, 50),
    "MRR@10": lambda ranking, grades: metrics.reciprocal_rank(ranking, grades, 10),
    "success@3": lambda ranking, grades: metrics.success(ranking, grades, 3),
}


def run(options: Options) -> Report:
    """Measures every collection in every mode."""
    names = NAMES[:1] if options.quick else NAMES
    figures = {}
    for name in names:
        collection = load(options.data, name)
        with system.running(PATIENT) as running:
            figures[name] = uvloop.run(_measure(running.url, collection, options.chunking))
    return _report(figures)


async def _measure(
    url: str, collection: TestCollection, chunking: dict[str, int]
) -> dict[str, Any]:
    async with connected(url) as api:
        chunks = await _index(api, collection, chunking)
        rankings: dict[str, list[Ranking]] = {}
        for mode in MODES[:3]:
            rankings[mode] = await _ask(api, collection, mode=mode, rerank=False, top_k=DEPTH)
        reranked = await _ask(api, collection, mode="hybrid", rerank=True, top_k=RERANKED)
    # The reranker reorders the first RERANKED passages; what follows keeps its order.
    rankings[MODES[3]] = [
        metrics.collapse([*top, *rest])
        for top, rest in zip(reranked, rankings["hybrid"], strict=True)
    ]
    return {
        "documents": len(collection.documents),
        "chunks": chunks,
        "questions": len(collection.questions),
        "modes": {mode: _means(found, collection.questions) for mode, found in rankings.items()},
    }


async def _index(api: Api, collection: TestCollection, chunking: dict[str, int]) -> int:
    chunks = 0
    for start in range(0, len(collection.documents), DOCUMENTS_A_REQUEST):
        part = collection.documents[start : start + DOCUMENTS_A_REQUEST]
        answer = await api.index(part, **chunking)
        chunks += answer["chunks"]
    return chunks


async def _ask(api: Api, collection: TestCollection, **how: Any) -> list[Ranking]:
    """The documents found for each question, in the order of the questions."""
    turn = asyncio.Semaphore(QUESTIONS_AT_ONCE)

    async def ask(question: Question) -> Ranking:
        async with turn:
            answer = await api.search(query=question.text, **how)
        missing = set(answer["degraded"]) - HARMLESS
        if missing:
            raise RuntimeError(f"question {question.id} was answered without {missing}")
        return metrics.collapse(source["document_id"] for source in answer["sources"])

    return await asyncio.gather(*(ask(question) for question in collection.questions))


def _means(rankings: Iterable[Ranking], questions: Iterable[Question]) -> dict[str, float]:
    pairs = list(zip(rankings, questions, strict=True))
    return {
        name: statistics.fmean(measure(ranking, question.grades) for ranking, question in pairs)
        for name, measure in MEASURES.items()
    }


def _report(figures: dict[str, Any]) -> Report:
    tables = [
        Table(
            f"{name}: {found['documents']:,} documents in {found['chunks']:,} chunks, "
            f"{found['questions']} questions",
            ("mode", *MEASURES, "nDCG@10 on whole documents"),
            [
                (
                    mode,
                    *(f"{found['modes'][mode][measure]:.3f}" for measure in MEASURES),
                    f"{WHOLE_DOCUMENTS[name][at]:.3f}" if name in WHOLE_DOCUMENTS else "",
                )
                for at, mode in enumerate(MODES)
            ],
        )
        for name, found in figures.items()
    ]
    targets = [
        Target(
            f"nDCG@10 on {name}, {mode},",
            found["modes"][mode]["nDCG@10"],
            WHOLE_DOCUMENTS[name][MODES.index(mode)] - ROUNDING,
            at_most=False,
        )
        for name, found in figures.items()
        if name in WHOLE_DOCUMENTS
        for mode in MODES[2:]
    ]
    return Report(figures, tables, targets)
