"""Tables get into the documents between their marks, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.publish import draw, published, replaced
from bench.report import machine

DOCUMENT = "# Speed\n\n<!-- bench:cache -->\nold\n<!-- /bench:cache -->\n\nReading.\n"


def test_tables_and_targets_replace_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "cache.json").write_text(json.dumps({"machine": machine()}))
    (tmp_path / "cache.md").write_text("| a | b |\n\n   met: x is 1\nMISSED: y is 2\n")
    document = published(DOCUMENT, tmp_path)
    assert "old" not in document
    assert document.startswith("# Speed\n\n<!-- bench:cache -->\nRun of ")
    assert (
        "| a | b |\n\n```\n   met: x is 1\nMISSED: y is 2\n```\n<!-- /bench:cache -->" in document
    )
    assert document.endswith("\n\nReading.\n")
    assert published(document, tmp_path) == document


def test_a_measurement_without_results_stays(tmp_path: Path) -> None:
    assert published(DOCUMENT, tmp_path) == DOCUMENT


def test_a_mark_without_its_end_is_an_error() -> None:
    with pytest.raises(ValueError, match="has no"):
        replaced("<!-- bench:cache --> and on", "cache", "new")


def test_pictures_are_drawn_from_results_and_only_from_them(tmp_path: Path) -> None:
    results, docs = tmp_path / "results", tmp_path / "docs"
    results.mkdir()
    docs.mkdir()
    draw(results, docs)
    assert list(docs.iterdir()) == []
    marks = "<!-- bench:overload -->\n<!-- /bench:overload -->"
    assert published(marks, results) == marks
    row = {
        "multiple": 1.0,
        "offered_per_s": 5.0,
        "goodput_per_s": 5.0,
        "refused_share": 0.0,
        "late_share": 0.0,
        "answered_ms": {"p50": 1.0, "p95": 2.0, "p99": 3.0},
        "refused_ms": None,
    }
    part = {"name": "a part", "deadline_s": 1.0, "capacity_per_s": 5.0, "rows": [row]}
    (results / "overload.json").write_text(
        json.dumps({"machine": machine(), "figures": {"parts": [part]}})
    )
    (results / "overload.md").write_text("| a | b |\n")
    draw(results, docs)
    assert "(overload.svg)" in published(marks, results)
    assert "A part: calls by outcome" in (docs / "overload.svg").read_text()
