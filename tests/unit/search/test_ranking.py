"""From stages to passages: scores in 0..1, and nothing that a record does not name."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.search import engine, ids, wire
from gateway.search.engine import Engine
from gateway.search.ranking import passages, ranked
from gateway.search.tuning import USUAL

PAYLOAD = {"document_id": "a", "ordinal": 0, "version": "1", "text": "t", "metadata": {}}


def test_one_stage_keeps_its_own_scale_and_needs_no_documents() -> None:
    assert ranked({wire.DENSE: {"p": 0.75, "q": -0.5}}, {}, 20) == [("p", 0.75), ("q", 0.0)]
    assert ranked({wire.SPARSE: {"p": 10.0}}, {}, 20) == [("p", 0.5)]
    assert ranked({}, {}, 20) == []


def test_two_stages_are_fused() -> None:
    stages = {wire.DENSE: {"p": 0.9, "q": 0.1}, wire.SPARSE: {"q": 8.0}}
    found = ranked(stages, {"p": "a", "q": "b"}, 20)
    assert found == [("q", pytest.approx((1 / 20 + 1 / 21) * 10)), ("p", pytest.approx(0.5))]


def test_what_no_record_names_is_told_apart() -> None:
    stages = {wire.DENSE: {"p": 0.9, "old": 0.8, "orphan": 0.7, "deleted": 0.6}}
    payloads = {
        "p": PAYLOAD,
        "old": PAYLOAD | {"version": "0"},
        "orphan": PAYLOAD | {"document_id": "gone"},
    }
    found = passages(ranked(stages, {}, 20), payloads, {"a": "1"}, stages)
    assert found.passages == [wire.Passage("a", 0, "t", {}, 0.9, 0.9, None)]
    assert found.stale == ["old", "orphan", "deleted"]


def test_the_memory_of_documents_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "REMEMBERED", 5)
    config = wire.Config(2, 1.2, 0.75, 48.0, "english", {"kind": "keyword"})
    opened = Engine(tmp_path / "1", config, USUAL, create=True)
    try:
        for number in range(12):
            name = f"d{number}"
            payload = PAYLOAD | {"document_id": name, "text": f"word{number} drop"}
            vector = wire.pack([1.0, number / 12])
            point = wire.Point(ids.chunk_id(name, "1", 0), payload, vector, payload["text"])
            record = wire.Point(ids.record_id(name), {"document_id": name, "version": "1"})
            opened.write(wire.Upsert([point, record]))
        for number in (0, 5, 11, 0):
            ask = wire.Query(
                wire.pack([1.0, number / 12]), f"word{number}", wire.Selection(), 4, 4, 20
            )
            found = opened.query(ask)
            assert found.passages[0].document_id == f"d{number}"
            assert found.passages[0].score == pytest.approx(1.0)
            assert len(opened._document_of) <= 5 + 2 * 4
    finally:
        opened.close()
