"""From a data file to an adapter's file and its card, tiny models in the places of real ones."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from support.training import (
    paragraphs,
    pool_and_near,
    tiny_cross_encoder,
    tiny_late_interaction,
    tiny_reader,
)

import training.__main__ as command
from encoders.adapters import read_adapter
from encoders.blueprint import Kind
from encoders.location import AdapterFile
from training.card import faults
from training.nearest import Indices, Pool

KINDS: dict[str, Kind] = {
    "reader": "reader", "reranker": "late_interaction", "cross_encoder": "cross_encoder",
}  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """62 articles in SQuAD's format: 60 are held out, of which 20 calibrate."""
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
        for one in paragraphs(articles=62)
    ]
    path = tmp_path / "own.json"
    path.write_text(json.dumps({"data": articles}))
    return path


@pytest.fixture
def _tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def near(pool: Pool, _: Path) -> Indices:
        return pool_and_near(list(pool.paragraphs))[1]

    monkeypatch.setattr("training.nearest.nearest", near)
    monkeypatch.setattr("training.reranked.nearest", near)
    late, cross = "training.late_interaction_recipe", "training.cross_encoder_recipe"
    made = tiny_late_interaction
    monkeypatch.setattr(f"{late}.new_late_interaction", lambda *_: made(tmp_path))
    monkeypatch.setattr(f"{cross}.new_cross_encoder", lambda *_: tiny_cross_encoder(tmp_path))
    monkeypatch.setattr("training.reader_recipe.new_reader", lambda *_: tiny_reader(tmp_path))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["training", *map(str, arguments)])
    # What belongs to the process stays as it is.
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    command.main()


@pytest.mark.usefixtures("_tiny")
@pytest.mark.parametrize("name", command.ADAPTERS)
def test_one_command_makes_file_and_card(
    name: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, table = tmp_path / "out", tmp_path / "more.md"
    table.write_text("**More**\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n")
    arguments = (
        name, "--data", data, "--folder", tmp_path / "work", "--output", output,
        "--steps", 2, "--seed", 3, "--threads", 1, "--device", "cpu", "--figures", table,
    )  # fmt: skip
    run(monkeypatch, *arguments)
    assert faults(output) == []
    path = output / f"{name}.safetensors"
    adapter = read_adapter(AdapterFile(path, "", "", KINDS[name]))
    head = None if adapter.head is None else adapter.head.weight.shape
    assert head == {"reader": (2, 32), "cross_encoder": (1, 32), "reranker": None}[name]
    assert (adapter.word_weights is not None) == (name == "reranker")
    card = (output / f"{name}.md").read_text()
    assert "--steps 2 --seed 3 --data own.json" in card
    assert "**More**" in card
    # Rerankers are examined by those of which a right passage is near.
    told = re.search(r"[1-9]\d* questions about articles it was not trained on", card)
    assert told is not None
    assert name != "reader" or told[0].startswith("160 ")
    # Once more: nothing is left to train, the same file comes of it.
    before = path.read_bytes()
    run(monkeypatch, *arguments)
    assert path.read_bytes() == before
    run(monkeypatch, *arguments, "--examine")
    assert told[0] in capsys.readouterr().out
    with pytest.raises(SystemExit, match="checkpoint"):
        run(monkeypatch, *arguments, "--examine", "--folder", tmp_path / "none")


@pytest.mark.usefixtures("_tiny")
def test_what_cannot_be_examined_replaces_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError("nothing to examine it by")

    monkeypatch.setattr("training.reader_recipe.examine", refuse)
    arguments = ("--data", data, "--folder", tmp_path / "work", "--output", tmp_path / "out")
    with pytest.raises(SystemExit, match="nothing to examine"):
        run(monkeypatch, "reader", *arguments, "--steps", 2, "--threads", 1, "--device", "cpu")
    assert not (tmp_path / "out").exists()


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
    few = json.loads(data.read_text())["data"][: 3 * 8]
    data.write_text(json.dumps({"data": few}))
    with pytest.raises(SystemExit, match="3 articles are too few"):
        run(monkeypatch, "reader", "--data", data, "--folder", tmp_path, "--threads", 1)
