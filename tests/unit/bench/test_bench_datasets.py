"""Reading collections, on small ones made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.datasets import data_folder, load


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_lines(
        tmp_path / "cisi" / "corpus.jsonl",
        [
            {"_id": "1", "title": "Catalogues", "text": "On cards."},
            {"_id": "2", "title": "Only a title", "text": ""},
            {"_id": "3", "title": "", "text": " "},
        ],
    )
    write_lines(
        tmp_path / "cisi" / "queries.jsonl",
        [{"_id": "q1", "text": "cards?"}, {"_id": "q2", "text": "unjudged?"}],
    )
    qrels = tmp_path / "cisi" / "qrels" / "test.tsv"
    qrels.parent.mkdir()
    qrels.write_text("query-id\tcorpus-id\tscore\nq1\t1\t2\nq1\t2\t0\nq2\t1\t0\n")
    write_lines(
        tmp_path / "rust-book" / "quiz.jsonl",
        [{"_id": "u", "text": "What moves?", "gold_chapter": ["ch04.md"]}],
    )
    (tmp_path / "wikiqa").mkdir()
    (tmp_path / "wikiqa" / "WikiQA-dev.tsv").write_text(
        "QuestionID\tQuestion\tSentence\tLabel\n"
        "Q1\tall wrong?\tNo.\t0\n"
        'Q2\thow big?\tIt is "big.\t0\n'
        "Q2\thow big?\tTwo metres.\t1\n"
    )
    (tmp_path / "trecqa").mkdir()
    for part in ("train", "dev"):
        (tmp_path / "trecqa" / f"{part}.csv").write_text(
            f'qtext,label,atext\nWho ?,1,"Someone , in {part} ."\nWho ?,0,Nobody .\nAll ?,1,So .\n'
        )
    (tmp_path / "rust-book" / "src").mkdir()
    (tmp_path / "rust-book" / "src" / "ch04.md").write_text("# Ownership")
    return tmp_path


def test_beir_joins_title_and_text_and_leaves_out_what_is_empty(data: Path) -> None:
    collection = load(data, "cisi")
    assert [(one.id, one.text) for one in collection.documents] == [
        ("1", "Catalogues\n\nOn cards."),
        ("2", "Only a title"),
    ]


def test_beir_keeps_only_questions_with_a_grade_above_zero(data: Path) -> None:
    assert [(one.id, one.grades) for one in load(data, "cisi").questions] == [("q1", {"1": 2})]


def test_the_quiz_names_chapters_by_their_files(data: Path) -> None:
    collection = load(data, "rust-book")
    assert [one.id for one in collection.documents] == ["ch04.md"]
    assert [one.grades for one in collection.questions] == [{"ch04.md": 1}]


def test_choices_have_both_labels_and_a_filter_for_their_own_sentences(data: Path) -> None:
    collection = load(data, "wikiqa")
    assert [(one.id, one.text, one.metadata) for one in collection.documents] == [
        ("0-0", 'It is "big.', {"question": 0}),
        ("0-1", "Two metres.", {"question": 0}),
    ]
    assert [(one.text, one.grades, one.filter) for one in collection.questions] == [
        ("how big?", {"0-1": 1}, {"question": 0})
    ]


def test_a_question_of_both_parts_is_asked_of_each(data: Path) -> None:
    collection = load(data, "trecqa")
    assert [(one.text, one.grades, one.filter) for one in collection.questions] == [
        ("Who ?", {"0-0": 1}, {"question": 0}),
        ("Who ?", {"1-0": 1}, {"question": 1}),
    ]
    assert [one.text for one in collection.documents][::2] == [
        "Someone , in train .",
        "Someone , in dev .",
    ]


def test_data_is_found_by_bench_data(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA", str(data))
    assert data_folder() == data


def test_absent_data_is_one_line_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit) as exit_info:
        data_folder()
    assert exit_info.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "BENCH_DATA" in said
