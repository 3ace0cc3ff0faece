"""Questions to a made-up system, and the report of what it said."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from bench import reading
from bench.api import Api
from bench.datasets import Document
from bench.options import Options
from bench.reading import ABSTAINED, IN_SENTENCE, SENTENCE, SPAN, Asked, Measured, report
from runtime.answers import NO_ANSWER
from training.squad import Paragraph, Parts, Question

TIMES = {"embed": 1.0, "search": 2.0, "rerank": 30.0}
TEXT = "Rome fell in 476."
WHEN = Asked("when?", ("476",), "0")
WHO = Asked("who?", ("Odoacer",), "1")
WHERE = Asked("where?", ("in Milan",), "0")


class System:
    """Answers "when?" and "who?" by the only passage, and knows nothing else."""

    def __init__(self, *, marks: bool, degraded: list[str] | None = None) -> None:
        self._marks = marks
        self._degraded = degraded or []
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path, body = request.url.path, json.loads(request.content)
        self.asked.append((path, body))
        if path == "/index":
            return httpx.Response(200, json={"chunks": 2 * len(body["documents"])})
        source = {"document_id": "0", "text": TEXT}
        if self._marks:
            source["spans"] = [{"start": 13, "end": 16}]  # type: ignore[assignment]
        known = body["query"] in ("when?", "who?")
        return httpx.Response(
            200,
            json={
                "answer": f"{TEXT} [1]" if known else NO_ANSWER,
                "sources": [source],
                "degraded": self._degraded,
                "latency_ms": 50.0 if body.get("rerank", True) else 20.0,
                "timings_ms": TIMES | {"generate": 15.0},
            },
        )


async def measured(system: System) -> Measured:
    transport = httpx.MockTransport(system)
    async with httpx.AsyncClient(base_url="http://made.up", transport=transport) as client:
        documents = [Document("0", TEXT), Document("1", "Another.")]
        return await reading.measure(
            Api(client), documents, [WHEN, WHO, WHERE], [WHERE, WHO], timed=2
        )


async def test_marked_spans_are_held_against_the_answers() -> None:
    found = await measured(System(marks=True))
    made = report(found, guarded=False)
    assert found.predicted == SPAN
    assert (found.paragraphs, found.chunks) == (2, 4)
    assert made.figures["means"] == pytest.approx(
        {
            "paragraph among the sources": 2 / 3,
            "answered": 2 / 3,
            "token F1 of the marked span": 1 / 3,
            "exact match of the marked span": 1 / 3,
            "token F1 of the marked span, paragraph among the sources": 1 / 2,
            # One token of four against one.
            "token F1 of the first sentence": 0.4 / 3,
            "answer in the first sentence, of all": 1 / 3,
            IN_SENTENCE: 1 / 2,
            ABSTAINED: 1 / 2,
        }
    )
    assert [target.value for target in made.targets] == pytest.approx([1 / 3, 0.5, 0.5, 30, 15])
    assert [target.met for target in made.targets] == [False, False, False, True, True]
    assert "/query without reranking, vector cached" in made.text()


async def test_without_spans_the_first_sentence_is() -> None:
    found = await measured(System(marks=False))
    made = report(found, guarded=False)
    assert found.predicted == SENTENCE
    assert made.targets[0].name == "token F1 of the first sentence"
    assert made.targets[0].value == pytest.approx(0.4 / 3)
    assert not any("marked" in name for name in made.figures["means"])


async def test_each_way_of_asking_is_timed() -> None:
    system = System(marks=True)
    found = await measured(system)
    assert {name: set(times) for name, times in found.costs_ms.items()} == {
        "/search without reranking": {20.0},
        "/search": {50.0},
        "/query without reranking": {20.0},
        "/query": {50.0},
    }
    assert [len(times) for times in found.costs_ms.values()] == [2] * 4
    asked = [(path, body) for path, body in system.asked if path != "/index"]
    # What is judged was asked with the defaults.
    assert asked[:5] == [("/query", {"query": one.text}) for one in (WHEN, WHO, WHERE, WHERE, WHO)]
    assert asked[5:9] == [
        (path, {"query": "when?", "rerank": rerank})
        for path in ("/search", "/query")
        for rerank in (False, True)
    ]


async def test_a_system_without_a_reader_is_asked_once_vectors_are_cached() -> None:
    system = System(marks=False)
    transport = httpx.MockTransport(system)
    async with httpx.AsyncClient(base_url="http://made.up", transport=transport) as client:
        spent = await reading.latencies(Api(client), [Document("0", TEXT)], [WHEN, WHO])
    assert spent == [50.0, 50.0]
    assert [path for path, _ in system.asked] == ["/index", *["/query"] * 4]
    assert [body["query"] for _, body in system.asked[1:]] == ["when?", "who?"] * 2


def test_cost_of_the_reader_is_taken_of_a_system_that_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two systems, one after the other, and a row for the second."""
    started: list[Mapping[str, str]] = []
    made_up = System(marks=True)

    @contextlib.contextmanager
    def running(environment: Mapping[str, str]) -> Iterator[SimpleNamespace]:
        started.append(environment)
        yield SimpleNamespace(url="http://made.up")

    @contextlib.asynccontextmanager
    async def connected(url: str) -> AsyncIterator[Api]:
        transport = httpx.MockTransport(made_up)
        async with httpx.AsyncClient(base_url=url, transport=transport) as client:
            yield Api(client)

    asked = (Question("1", "when?", ("476",)), Question("2", "who?", ("Odoacer",)))
    here, away = Paragraph("a", TEXT, asked), Paragraph("b", "Elsewhere.", asked)
    unasked = Paragraph("c", "In the way.", (Question("3", "never?", ("way",)),))
    squad = Parts((away,), (unasked,), (here,), (away,))
    monkeypatch.setattr(reading, "parts", lambda _: squad)
    monkeypatch.setattr(reading.system, "running", running)
    monkeypatch.setattr(reading, "connected", connected)
    made = reading.run(Options(tmp_path, quick=True))
    assert [one.get("READER_MODEL") for one in started] == [None, "none"]
    assert made.figures["costs_ms"][reading.WITHOUT_READER] == [50.0, 50.0]
    assert "/query without a reader, vector cached" in made.text()
    # Both hold the same: what is asked about and what is in the way, not what must be absent.
    indexed = [body["documents"] for path, body in made_up.asked if path == "/index"]
    texts = [[document["text"] for document in documents] for documents in indexed]
    assert texts == [[TEXT, "In the way."]] * 2
    assert {body["query"] for path, body in made_up.asked if path != "/index"} == {"when?", "who?"}


def test_a_question_names_the_document_of_its_paragraph() -> None:
    """Whatever else is indexed: paragraphs are numbered in each part from 0."""

    def paragraphs(part: str) -> tuple[Paragraph, ...]:
        texts = [f"{part} {at}" for at in range(3)]
        return tuple(Paragraph(part, text, (Question("", text, ("x",)),)) for text in texts)

    squad = Parts((), paragraphs("calibration"), paragraphs("asked"), paragraphs("absent"))
    texts = {document.id: document.text for document in reading.held_out(squad)}
    assert len(texts) == 6
    assert [texts[one.document] for one in reading.sample(squad.indexed, 3, reading.PRESENT)] == [
        one.text for one in reading.sample(squad.indexed, 3, reading.PRESENT)
    ]
    absent = reading.sample(squad.absent, 3, reading.ABSENT)
    assert not {one.document for one in absent} & set(texts)


async def test_an_answer_that_had_to_do_without_is_not_measured() -> None:
    with pytest.raises(RuntimeError, match="rerank"):
        await measured(System(marks=True, degraded=["rerank"]))
    await measured(System(marks=True, degraded=["query_truncated"]))
    transport = httpx.MockTransport(System(marks=False, degraded=["rerank"]))
    async with httpx.AsyncClient(base_url="http://made.up", transport=transport) as client:
        with pytest.raises(RuntimeError, match="rerank"):
            await reading.latencies(Api(client), [], [WHEN])


async def test_a_whole_run_is_guarded_and_a_trial_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "committed", dict)
    found = await measured(System(marks=True))
    trial = report(found, guarded=False)
    assert (trial.failures, trial.figures["quality"]) == ([], {})
    whole = report(found, guarded=True)
    assert len(whole.failures) == 1
    quality = whole.figures["quality"]["squad"]["marked span"]
    assert quality["questions"] == [1, 0, 0]
    assert set(quality["means"]) == {"token F1", "in the sentence", "abstained"}


async def test_nothing_answered_is_told_and_breaks_nothing() -> None:
    found = await measured(System(marks=True))
    silent = [reply for reply in found.present if not reply.said.answered]
    made = report(Measured(2, 4, silent, silent, {}), guarded=False)
    assert IN_SENTENCE not in made.figures["means"]
    assert made.figures["means"][ABSTAINED] == 1


def test_the_sample_is_the_same_every_time_and_names_the_paragraph() -> None:
    paragraphs = [
        Paragraph("a", "text", tuple(Question(f"{p}.{q}", f"{p}.{q}?", ("x",)) for q in range(9)))
        for p in range(4)
    ]
    drawn = reading.sample(paragraphs, 10, "part")
    assert drawn == reading.sample(paragraphs, 10, "part")
    assert len({one.text for one in drawn}) == 10
    assert all(one.document == f"part-{one.text[0]}" for one in drawn)
    assert len(reading.sample(paragraphs, 100, "part")) == 36
