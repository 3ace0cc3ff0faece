"""Tables, numbers and targets as people read them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import report
from bench.publish import published
from bench.report import Report, Table, Target, machine, number, save


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (0.012345, "0.0123"),
        (1.2345, "1.23"),
        (9.999, "10.0"),
        (12.345, "12.3"),
        (99.96, "100"),
        (123.45, "123"),
        (12345.0, "12,300"),
        (-1.2345, "-1.23"),
    ],
)
def test_numbers_have_three_significant_digits(value: float, shown: str) -> None:
    assert number(value) == shown


def test_a_table_is_markdown_with_numbers_to_the_right() -> None:
    table = Table("Speed", ("what", "ms"), [("short", "1"), ("longer one", "12.5")])
    assert table.markdown() == "\n".join(
        (
            "**Speed**",
            "",
            "| what       |   ms |",
            "|------------|-----:|",
            "| short      |    1 |",
            "| longer one | 12.5 |",
        )
    )


@pytest.mark.parametrize(
    ("value", "at_most", "met"), [(3, True, True), (3.1, True, False), (2.9, False, False)]
)
def test_targets_are_met_or_missed(value: float, at_most: bool, met: bool) -> None:
    target = Target("it", value, 3, at_most=at_most)
    assert target.met is met
    assert ("MISSED" in target.line()) is not met


def test_results_are_saved_with_where_they_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path / "results")
    path = save(
        "speed", Report({"p50_ms": 1.5}, [], [Target("p50", 1.5, 1, at_most=True)]), machine()
    )
    saved = json.loads(path.read_text())
    assert "MISSED: p50 is 1.50" in path.with_suffix(".md").read_text()
    assert saved["figures"] == {"p50_ms": 1.5}
    assert saved["targets"][0]["met"] is False
    assert saved["machine"]["cores"] >= 1


def test_a_trial_leaves_the_results_of_a_run_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    save("speed", Report({"p50_ms": 1.5}, []), machine())
    save("speed", Report({"p50_ms": 9.0}, []), machine(), quick=True)
    assert json.loads((tmp_path / "speed.json").read_text())["figures"] == {"p50_ms": 1.5}
    marks = "<!-- bench:speed --><!-- /bench:speed -->"
    trial, run = tmp_path / "speed.quick.md", tmp_path / "speed.md"
    trial.write_text("trial\n")
    run.write_text("run\n")
    document = published(marks, tmp_path)
    assert "run" in document
    assert "trial" not in document
