"""How good the passages are that the running system finds, against the judgements of people.

Everything goes through the API, chunking included: each collection is indexed in a fresh
system, its questions are asked in every mode, and the chunks that come back are collapsed to
documents by first occurrence. It fails when a figure is worse than what was committed
(`bench.quality`).
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import uvloop

from bench import metrics, system
from bench.api import Api, connected
from bench.datasets import COLLECTIONS, Question, TestCollection, load
from bench.options import Options
from bench.quality import Figures, Quality, change, committed, p_text, quality_of, regressions
from bench.report import Report, Table, Target
from bench.significance import paired_p

NAMES: Final = (*COLLECTIONS, "rust-book")
# The fewest questions, and half of its documents are a title alone: about a minute.
QUICK: Final = ("cacm",)
# Passages asked for: the most that /search gives, so that 50 documents are among them.
DEPTH: Final = 200
# What the reranker sees by default (RERANK_CANDIDATES).
RERANKED: Final = 30
HYBRID: Final = "hybrid"
MODES: Final = ("dense", "sparse", HYBRID, "hybrid + rerank")
# Lengths of a list as it is shown, in which distinct documents are counted.
SHOWN: Final = (5, 10)
QUESTIONS_AT_ONCE: Final = 2
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

# The documents of the passages found, in their order; collapsed, each document once.
Ranking = list[str]
Measure = Callable[[Sequence[str], dict[str, int]], float]
MEASURES: Final[dict[str, Measure]] = {
    "nDCG@10": lambda ranking, grades: metrics.ndcg(ranking, grades, 10),
    "recall@50": lambda ranking, grades: metrics.recall(ranking, grades, 50),
    "MRR": lambda ranking, grades: metrics.reciprocal_rank(ranking, grades, DEPTH),
    "success@3": lambda ranking, grades: metrics.success(ranking, grades, 3),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """One collection.

    modes: mode → quality. shown: length of a list → mean number of distinct documents in it.
    """

    documents: int
    chunks: int
    questions: int
    modes: dict[str, Quality]
    shown: dict[int, float]


def whole(answer: dict[str, Any], question: str) -> dict[str, Any]:
    """The answer. Raises RuntimeError, with the question's name, where a stage was left out."""
    if missing := set(answer["degraded"]) - HARMLESS:
        raise RuntimeError(f"{question} was answered without {missing}")
    return answer


def run(options: Options) -> Report:
    """Measures every collection in every mode."""
    figures = {}
    for name in QUICK if options.quick else NAMES:
        collection = load(options.data, name)
        with system.running(PATIENT) as running:
            figures[name] = uvloop.run(_measure(running.url, collection, options.chunking))
    # Committed figures are of the default chunking.
    return _report(figures, options.chunking, {} if options.chunking else committed())


async def _measure(url: str, collection: TestCollection, chunking: dict[str, int]) -> Measured:
    async with connected(url) as api:
        chunks = await api.index_all(collection.documents, **chunking)
        passages: dict[str, list[Ranking]] = {}
        for mode in MODES[:3]:
            passages[mode] = await _ask(api, collection, mode=mode, rerank=False, top_k=DEPTH)
        reranked = await _ask(api, collection, mode=HYBRID, rerank=True, top_k=RERANKED)
        shown = await _ask(api, collection, mode=HYBRID, rerank=False, top_k=max(SHOWN))
    # The reranker reorders the first RERANKED passages; what follows keeps its order.
    passages[MODES[3]] = [
        [*top, *rest] for top, rest in zip(reranked, passages[HYBRID], strict=True)
    ]
    return Measured(
        documents=len(collection.documents),
        chunks=chunks,
        questions=len(collection.questions),
        modes={mode: _quality(found, collection.questions) for mode, found in passages.items()},
        shown={
            length: statistics.fmean(len(set(documents[:length])) for documents in shown)
            for length in SHOWN
        },
    )


async def _ask(api: Api, collection: TestCollection, **how: Any) -> list[Ranking]:
    """The documents of the passages found for each question, in the order of the questions."""
    turn = asyncio.Semaphore(QUESTIONS_AT_ONCE)

    async def ask(question: Question) -> Ranking:
        async with turn:
            answer = await api.search(query=question.text, **how)
        sources = whole(answer, f"question {question.id}")["sources"]
        return [source["document_id"] for source in sources]

    return await asyncio.gather(*(ask(question) for question in collection.questions))


def _quality(passages: Sequence[Ranking], questions: Sequence[Question]) -> Quality:
    rankings = [metrics.collapse(documents) for documents in passages]
    return quality_of(
        {
            name: [
                measure(ranking, question.grades)
                for ranking, question in zip(rankings, questions, strict=True)
            ]
            for name, measure in MEASURES.items()
        }
    )


def _report(measured: dict[str, Measured], chunking: dict[str, int], before: Figures) -> Report:
    quality = {name: found.modes for name, found in measured.items()}
    figures = {
        "chunking": chunking,
        "collections": {
            name: {"documents": found.documents, "chunks": found.chunks, "shown": found.shown}
            for name, found in measured.items()
        },
        "quality": msgspec.to_builtins(quality),
    }
    tables = [_table(name, found, before) for name, found in measured.items()]
    tables.append(_shown_table(measured))
    failures = [] if chunking else regressions(quality, before)
    return Report(figures, tables, _targets(measured), failures)


def _table(name: str, found: Measured, before: Figures) -> Table:
    hybrid = found.modes[HYBRID].questions
    rows = []
    for at, mode in enumerate(MODES):
        now = found.modes[mode]
        whole = WHOLE_DOCUMENTS.get(name)
        rows.append(
            (
                mode,
                *(f"{now.means[measure]:.3f}" for measure in MEASURES),
                "" if mode == HYBRID else p_text(paired_p(now.questions, hybrid)),
                *change(now, before.get(name, {}).get(mode)),
                f"{whole[at]:.3f}" if whole else "",
            )
        )
    columns = ("mode", *MEASURES, "p, hybrid", "change", "p, change", "whole documents")
    return Table(
        f"{name}: {found.documents:,} documents in {found.chunks:,} chunks, "
        f"{found.questions} questions",
        columns,
        rows,
    )


def _shown_table(measured: dict[str, Measured]) -> Table:
    return Table(
        "Distinct documents among the first passages, hybrid",
        ("collection", *(f"first {length}" for length in SHOWN)),
        [
            (name, *(f"{found.shown[length]:.2f}" for length in SHOWN))
            for name, found in measured.items()
        ],
    )


def _targets(measured: dict[str, Measured]) -> list[Target]:
    return [
        Target(
            f"nDCG@10 on {name}, {mode},",
            found.modes[mode].means["nDCG@10"],
            WHOLE_DOCUMENTS[name][MODES.index(mode)] - ROUNDING,
            at_most=False,
        )
        for name, found in measured.items()
        if name in WHOLE_DOCUMENTS
        for mode in MODES[2:]
    ]
