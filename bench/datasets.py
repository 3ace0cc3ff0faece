"""The evaluation data: documents, questions, and which documents people judged relevant."""

from __future__ import annotations

import csv
import gzip
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
# Beside the checkout: several collections are for research only, and none is committed.
DEFAULT_DATA: Final = ROOT.parent / "shared" / "data"

COLLECTIONS: Final = ("cranfield", "cisi", "cacm")
# Sentences to choose from, for each question its own.
CHOICES: Final = ("wikiqa", "trecqa")
EXIT_NO_DATA: Final = 2


@dataclass(frozen=True, slots=True)
class Document:
    """What is indexed."""

    id: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Question:
    """grades: document id → relevance, at least one above 0.

    filter: of the documents that it is asked of; None: of all.
    """

    id: str
    text: str
    grades: dict[str, int]
    filter: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class TestCollection:
    """Documents and the questions that were judged on them."""

    name: str
    documents: tuple[Document, ...]
    questions: tuple[Question, ...]


def data_folder(*, needed: bool = True) -> Path:
    """`BENCH_DATA`, or its default; exits 2 with what to do when it is needed and not there."""
    folder = Path(os.environ.get("BENCH_DATA") or DEFAULT_DATA)
    if needed and not (folder / "rust-book").is_dir():
        print(
            f"bench: no evaluation data in {folder}. Set BENCH_DATA to the folder that holds "
            "cranfield/, cisi/, cacm/, rust-book/, squad/, wikiqa/ and trecqa/ "
            "(docs/benchmarks.md says what they are and where they come from).",
            file=sys.stderr,
        )
        sys.exit(EXIT_NO_DATA)
    return folder


def load(data: Path, name: str) -> TestCollection:
    """The test collection `name`: one of COLLECTIONS or CHOICES, or "rust-book"."""
    others = {"rust-book": rust_quiz, "wikiqa": wikiqa, "trecqa": trecqa}
    return others[name](data) if name in others else beir(data / name)


def beir(folder: Path) -> TestCollection:
    """A collection in BEIR's layout, its documents' title and text as one text.

    Documents without any text are left out (two of Cranfield's), and so are questions
    without a relevant document.
    """
    grades: dict[str, dict[str, int]] = defaultdict(dict)
    with (folder / "qrels" / "test.tsv").open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if (grade := int(row["score"])) > 0:
                grades[row["query-id"]][row["corpus-id"]] = grade
    documents = (
        Document(row["_id"], f"{row['title']}\n\n{row['text']}".strip())
        for row in _json_lines(folder / "corpus.jsonl")
    )
    questions = (
        Question(row["_id"], row["text"], grades[row["_id"]])
        for row in _json_lines(folder / "queries.jsonl")
        if row["_id"] in grades
    )
    return TestCollection(
        folder.name, tuple(document for document in documents if document.text), tuple(questions)
    )


def rust_quiz(data: Path) -> TestCollection:
    """The Rust book, a document per file, and the quiz: question → the chapter that answers it."""
    questions = (
        Question(row["_id"], row["text"], dict.fromkeys(row["gold_chapter"], 1))
        for row in _json_lines(data / "rust-book" / "quiz.jsonl")
    )
    return TestCollection("rust-book", rust_book(data), tuple(questions))


def rust_book(data: Path) -> tuple[Document, ...]:
    """The files of The Rust Programming Language, the file's name as id."""
    files = sorted((data / "rust-book" / "src").glob("*.md"))
    return tuple(Document(file.name, file.read_text()) for file in files)


def wikiqa(data: Path) -> TestCollection:
    """WikiQA's development part: questions put to a search engine, sentences of Wikipedia."""
    # Quotation marks are part of the text.
    with (data / "wikiqa" / "WikiQA-dev.tsv").open(newline="") as file:
        rows = [
            (row["QuestionID"], row["Question"], row["Sentence"], int(row["Label"]))
            for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]
    return _sentence_choice("wikiqa", rows)


def trecqa(data: Path) -> TestCollection:
    """TREC-QA's training and development parts: questions of TREC 8 to 13, sentences of news.

    A question that stands in both parts is two: its sentences are others.
    """
    rows = []
    for part in ("train", "dev"):
        with (data / "trecqa" / f"{part}.csv").open(newline="") as file:
            rows += [
                (f"{part}: {row['qtext']}", row["qtext"], row["atext"], int(row["label"]))
                for row in csv.DictReader(file)
            ]
    return _sentence_choice("trecqa", rows)


def _sentence_choice(name: str, rows: Iterable[tuple[str, str, str, int]]) -> TestCollection:
    """Each question's sentences as documents of their own, which its filter keeps to.

    rows: (what tells the question from others, its text, a sentence, 1 where that answers).
    Questions whose sentences all answer, or none, measure nothing and are left out.
    """
    texts: dict[str, str] = {}
    sentences: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for key, text, sentence, label in rows:
        texts[key] = text
        sentences[key].append((sentence, label))
    documents: list[Document] = []
    questions: list[Question] = []
    for key, choice in sentences.items():
        if len({label for _, label in choice}) < 2:
            continue
        own = {"question": len(questions)}
        ids = [f"{len(questions)}-{position}" for position in range(len(choice))]
        documents += (
            Document(id_, sentence, own) for id_, (sentence, _) in zip(ids, choice, strict=True)
        )
        grades = {id_: label for id_, (_, label) in zip(ids, choice, strict=True) if label > 0}
        questions.append(Question(str(len(questions)), texts[key], grades, own))
    return TestCollection(name, tuple(documents), tuple(questions))


def question_texts(data: Path) -> list[str]:
    """Every distinct question of the quiz and the three collections, judged or not."""
    quiz = [row["text"] for row in _json_lines(data / "rust-book" / "quiz.jsonl")]
    others = [
        row["text"] for name in COLLECTIONS for row in _json_lines(data / name / "queries.jsonl")
    ]
    return list(dict.fromkeys(quiz + others))


def squad_questions(data: Path) -> list[str]:
    """Every distinct question of SQuAD's training part (87,000 of them), in its order."""
    with gzip.open(data / "squad" / "train-v1.1.json.gz", "rt") as file:
        articles = json.load(file)["data"]
    return list(
        dict.fromkeys(
            question["question"]
            for article in articles
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        )
    )


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open() as file:
        for line in file:
            yield json.loads(line)
