"""From a data file to an adapter's file and its card, a tiny reader in the real one's place."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from support.training import paragraphs, pool_and_near, tiny_reader

import training.__main__ as command
from encoders.adapters import read_adapter
from encoders.location import AdapterFile
from training.card import faults
from training.nearest import Indices, Pool


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """62 articles in SQuAD's format: 60 are held out."""
    articles = [
        {
            "title": one.article,
            "paragraphs": [
                {
                    "context": one.text,
                    "qas": [
                        {"id": q.id, "question": q.text, "answers": [{"text": q.answers[0]}]}
                        for q in one.questions
                    ],
                }
            ],
        }
        for one in paragraphs(articles=62, each=1)
    ]
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"data": articles}))
    return path


@pytest.fixture
def _tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def near(pool: Pool, _: Path) -> Indices:
        return pool_and_near(list(pool.paragraphs))[1]

    monkeypatch.setattr("training.nearest.nearest", near)
    monkeypatch.setattr("training.reader.new_reader", lambda *_: tiny_reader(tmp_path))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["training", *map(str, arguments)])
    # What belongs to the process stays as it is.
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    command.main()


@pytest.mark.usefixtures("_tiny")
def test_one_command_makes_file_and_card(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, table = tmp_path / "out", tmp_path / "more.md"
    table.write_text("**More**\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n")
    arguments = (
        "reader", "--data", data, "--folder", tmp_path / "work", "--output", output,
        "--steps", 2, "--seed", 3, "--threads", 1, "--device", "cpu", "--figures", table,
    )  # fmt: skip
    run(monkeypatch, *arguments)
    assert faults(output) == []
    path = output / "reader.safetensors"
    adapter = read_adapter(AdapterFile(path, "", "", "reader"))
    assert adapter.head is not None
    assert adapter.head.weight.shape == (2, 32)
    card = (output / "reader.md").read_text()
    assert "--steps 2 --seed 3 --data own.json" in card
    assert "**More**" in card
    assert "20 questions" in card
    # Once more: nothing is left to train, the same file comes of it.
    before = path.read_bytes()
    run(monkeypatch, *arguments)
    assert path.read_bytes() == before
    run(monkeypatch, *arguments, "--examine")
    assert "20 questions" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="checkpoint"):
        run(monkeypatch, *arguments, "--examine", "--folder", tmp_path / "none")


def test_without_data_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    with pytest.raises(SystemExit) as left:
        run(monkeypatch, "reader", "--threads", 1, "--device", "cpu")
    assert left.value.code == command.EXIT_NO_DATA
    assert "BENCH_DATA" in capsys.readouterr().err


def test_too_little_data_is_one_line(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = json.loads(data.read_text())["data"][:3]
    data.write_text(json.dumps({"data": few}))
    with pytest.raises(SystemExit, match="3 articles are too few"):
        run(monkeypatch, "reader", "--data", data, "--folder", tmp_path, "--threads", 1)
