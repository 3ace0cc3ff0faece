"""How well questions are answered: articles of SQuAD that nothing was trained on, through /query.

The paragraphs of the held-out articles are indexed, a document each. Questions about most of these
must be answered with what people marked in the paragraph; about those that thresholds were chosen
on nothing is asked, they are only in the way. Questions about the last held-out articles, which
are not indexed, must not be answered.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import uvloop

from bench import system
from bench.api import Api, connected
from bench.datasets import Document
from bench.options import Options
from bench.quality import Quality, committed, regressions
from bench.report import Report, Table, Target, number
from bench.retrieval import PATIENT, whole
from bench.significance import interval
from bench.spans import Said, exact, holds, said, token_f1
from bench.stats import percentile
from training.squad import Paragraph, Parts, parts

SEED: Final = 2026
# Parts of the held-out articles, as the ids of their documents begin.
PRESENT: Final = "present"
IN_THE_WAY: Final = "in-the-way"
ABSENT: Final = "absent"
# Of each kind: about what is indexed, and about what is not.
QUESTIONS: Final = 500
QUICK_QUESTIONS: Final = 40
# Of those, asked again in every way of COSTS.
TIMED: Final = 100
QUICK_TIMED: Final = 5
COSTS: Final[Mapping[str, tuple[str, bool]]] = {
    "/search without reranking": ("search", False),
    "/search": ("search", True),
    "/query without reranking": ("query", False),
    "/query": ("query", True),
}
# Asked of a system of its own, which is another process: it cannot take turns with those of COSTS.
WITHOUT_READER: Final = "/query without a reader"
NO_READER: Final = {"READER_MODEL": "none"}
STAGES: Final = ("embed", "search", "rerank", "generate")
PERCENTILES: Final = (50, 95)
SQUAD: Final = "squad"
SPAN: Final = "marked span"
SENTENCE: Final = "first sentence"
IN_SENTENCE: Final = "answer in the first sentence, of answers given"
ABSTAINED: Final = "not answered, the article not indexed"
F1_AIM: Final = 0.7
SENTENCE_AIM: Final = 0.8
ABSTENTION_AIM: Final = 0.8
STAGE_LIMITS_MS: Final[Mapping[str, float]] = {"rerank": 250.0, "generate": 150.0}


@dataclass(frozen=True, slots=True)
class Asked:
    """answers: as people marked them; document: the paragraph they stand in."""

    text: str
    answers: tuple[str, ...]
    document: str


@dataclass(frozen=True, slots=True)
class Reply:
    """found: whether the paragraph is among the sources."""

    asked: Asked
    said: Said
    found: bool
    latency_ms: float
    timings_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class Measured:
    """present: replies to questions about what is indexed; absent: about what is not.

    costs_ms: way of asking → latencies.
    """

    paragraphs: int
    chunks: int
    present: list[Reply]
    absent: list[Reply]
    costs_ms: dict[str, list[float]]

    @property
    def predicted(self) -> str:
        """What is held against the answers: the marked span, unless nothing is ever marked."""
        return SPAN if any(reply.said.marked for reply in self.present) else SENTENCE


def run(options: Options) -> Report:
    """Indexes, asks one question after another, then some of them in every way of COSTS, and of
    a system without a reader."""
    squad = parts(options.data)
    count, timed = (QUICK_QUESTIONS, QUICK_TIMED) if options.quick else (QUESTIONS, TIMED)
    documents = held_out(squad)
    present, absent = sample(squad.indexed, count, PRESENT), sample(squad.absent, count, ABSENT)

    async def measured(url: str) -> Measured:
        async with connected(url) as api:
            return await measure(api, documents, present, absent, timed)

    async def timed_without(url: str) -> list[float]:
        async with connected(url) as api:
            return await latencies(api, documents, present[:timed])

    with system.running(PATIENT) as running:
        found = uvloop.run(measured(running.url))
    with system.running(PATIENT | NO_READER) as running:
        found.costs_ms[WITHOUT_READER] = uvloop.run(timed_without(running.url))
    return report(found, guarded=not options.quick)


def held_out(squad: Parts) -> list[Document]:
    """What is indexed: every held-out paragraph but those of the articles that must be absent."""
    return [
        Document(_id(part, at), paragraph.text)
        for part, paragraphs in ((PRESENT, squad.indexed), (IN_THE_WAY, squad.calibration))
        for at, paragraph in enumerate(paragraphs)
    ]


def sample(paragraphs: Sequence[Paragraph], count: int, part: str) -> list[Asked]:
    """So many of the paragraphs' questions, drawn once and for all; a paragraph's document is
    called by the part and its position in it."""
    every = [
        Asked(question.text, question.answers, _id(part, at))
        for at, paragraph in enumerate(paragraphs)
        for question in paragraph.questions
    ]
    return random.Random(SEED).sample(every, min(count, len(every)))


def _id(part: str, at: int) -> str:
    return f"{part}-{at}"


async def measure(
    api: Api,
    documents: Sequence[Document],
    present: Sequence[Asked],
    absent: Sequence[Asked],
    timed: int,
) -> Measured:
    """Indexes and asks, one question at a time."""
    chunks = await api.index_all(documents)
    return Measured(
        len(documents),
        chunks,
        [await _ask(api, one) for one in present],
        [await _ask(api, one) for one in absent],
        await _costs(api, present[:timed]),
    )


async def latencies(api: Api, documents: Sequence[Document], asked: Sequence[Asked]) -> list[float]:
    """Of /query by default, each question's vector cached, once the documents are indexed."""
    await api.index_all(documents)
    for one in asked:
        await api.query(query=one.text)
    return [whole(await api.query(query=one.text), repr(one.text))["latency_ms"] for one in asked]


async def _ask(api: Api, asked: Asked) -> Reply:
    answer = whole(await api.query(query=asked.text), repr(asked.text))
    found = any(source["document_id"] == asked.document for source in answer["sources"])
    return Reply(asked, said(answer), found, answer["latency_ms"], answer["timings_ms"])


async def _costs(api: Api, asked: Sequence[Asked]) -> dict[str, list[float]]:
    """Latencies of every way to ask; they take turns, and each finds the vector cached."""
    ways: dict[str, Callable[..., Any]] = {"search": api.search, "query": api.query}
    costs_ms: dict[str, list[float]] = {name: [] for name in COSTS}
    for one in asked:
        for name, (way, rerank) in COSTS.items():
            answer = whole(await ways[way](query=one.text, rerank=rerank), repr(one.text))
            costs_ms[name].append(answer["latency_ms"])
    return costs_ms


def report(measured: Measured, *, guarded: bool) -> Report:
    """guarded: fail where a figure is worse than what was committed."""
    values = _values(measured)
    means = {name: statistics.fmean(of) for name, of in values.items() if of}
    f1 = f"token F1 of the {measured.predicted}"
    held = {
        "token F1": means[f1],
        "in the sentence": means.get(IN_SENTENCE, 0.0),
        "abstained": means[ABSTAINED],
    }
    quality = {SQUAD: {measured.predicted: Quality(held, values[f1])}} if guarded else {}
    stages_ms = _stages_ms(measured)
    figures = {
        "paragraphs": measured.paragraphs,
        "chunks": measured.chunks,
        "means": means,
        "stages_ms": stages_ms,
        "costs_ms": measured.costs_ms,
        "replies": msgspec.to_builtins([*measured.present, *measured.absent]),
        "quality": msgspec.to_builtins(quality),
    }
    targets = [
        Target(f1, held["token F1"], F1_AIM, at_most=False),
        Target(IN_SENTENCE, held["in the sentence"], SENTENCE_AIM, at_most=False),
        Target(ABSTAINED, held["abstained"], ABSTENTION_AIM, at_most=False),
        *(
            Target(f"p50 ms of {stage} in a /query", percentile(stages_ms[stage], 50), limit,
                   at_most=True)
            for stage, limit in STAGE_LIMITS_MS.items()
        ),
    ]  # fmt: skip
    tables = [_quality_table(measured, values), _time_table(stages_ms, measured.costs_ms)]
    return Report(figures, tables, targets, regressions(quality, committed()) if guarded else [])


def _values(measured: Measured) -> dict[str, list[float]]:
    """Measure → its value for each question that it is about. What is not answered has F1 0."""
    present = measured.present
    given = [reply for reply in present if reply.said.answered]
    values = {
        "paragraph among the sources": [float(reply.found) for reply in present],
        "answered": [float(reply.said.answered) for reply in present],
    }
    if measured.predicted == SPAN:
        spans = [(reply, reply.said.marked or "") for reply in present]
        values |= {
            "token F1 of the marked span": [token_f1(t, r.asked.answers) for r, t in spans],
            "exact match of the marked span": [float(exact(t, r.asked.answers)) for r, t in spans],
            "token F1 of the marked span, paragraph among the sources": [
                token_f1(text, reply.asked.answers) for reply, text in spans if reply.found
            ],
        }
    return values | {
        "token F1 of the first sentence": [
            token_f1(reply.said.sentence, reply.asked.answers) for reply in present
        ],
        "answer in the first sentence, of all": [_in_sentence(reply) for reply in present],
        IN_SENTENCE: [_in_sentence(reply) for reply in given],
        ABSTAINED: [float(not reply.said.answered) for reply in measured.absent],
    }


def _in_sentence(reply: Reply) -> float:
    return float(holds(reply.said.sentence, reply.asked.answers))


def _stages_ms(measured: Measured) -> dict[str, list[float]]:
    """Stage → its time in every /query by default, and the whole of it."""
    replies = [*measured.present, *measured.absent]
    stages = {stage: [reply.timings_ms[stage] for reply in replies] for stage in STAGES}
    return stages | {"all of it": [reply.latency_ms for reply in replies]}


def _quality_table(measured: Measured, values: Mapping[str, Sequence[float]]) -> Table:
    rows: list[tuple[str, ...]] = []
    for name, of_questions in values.items():
        if not of_questions:
            rows.append((name, "", "", "0"))
            continue
        low, high = interval(of_questions)
        mean = statistics.fmean(of_questions)
        rows.append((name, f"{mean:.3f}", f"{low:.3f} to {high:.3f}", str(len(of_questions))))
    return Table(
        f"Held-out SQuAD: {measured.paragraphs:,} paragraphs in {measured.chunks:,} chunks",
        ("measure", "mean", "95 % interval", "questions"),
        rows,
    )


def _time_table(
    stages_ms: Mapping[str, Sequence[float]], costs_ms: Mapping[str, Sequence[float]]
) -> Table:
    times = {f"/query by default: {stage}": of for stage, of in stages_ms.items()}
    times |= {f"{name}, vector cached": of for name, of in costs_ms.items()}
    return Table(
        "Time in the gateway, one client",
        ("", *(f"p{percent} ms" for percent in PERCENTILES), "questions"),
        [
            (name, *(number(percentile(of, percent)) for percent in PERCENTILES), str(len(of)))
            for name, of in times.items()
            if of
        ],
    )
