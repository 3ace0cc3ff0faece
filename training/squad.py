"""SQuAD's training part, as questions about passages cut the way the product cuts documents.

Rajpurkar et al., "SQuAD: 100,000+ Questions for Machine Comprehension of Text" (2016).
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.chunking import cut
from gateway.search.types import Chunking

# Below a data folder.
SQUAD: Final = Path("squad", "train-v1.1.json.gz")
# What POST /index does unless it is told otherwise.
CHUNKING: Final = Chunking(512, 50)
# Articles that no adapter is trained on, by the order of their titles' SHA-256: thresholds are
# chosen on the first, figures come from questions about the second and the third. What is indexed
# for those figures are the paragraphs of the first and the second.
CALIBRATION_ARTICLES: Final = 20
INDEXED_ARTICLES: Final = 30
ABSENT_ARTICLES: Final = 10


@dataclass(frozen=True, slots=True)
class Question:
    """answers: the texts that people marked, word for word in the paragraph."""

    id: str
    text: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph of an article, with what was asked about it."""

    article: str
    text: str
    questions: tuple[Question, ...]


@dataclass(frozen=True, slots=True)
class Parts:
    """The paragraphs of SQuAD, by what they are for."""

    training: tuple[Paragraph, ...]
    calibration: tuple[Paragraph, ...]
    indexed: tuple[Paragraph, ...]
    absent: tuple[Paragraph, ...]


def parts(data: Path) -> Parts:
    """The parts of SQuAD, which lies as `squad/train-v1.1.json.gz` under `data`."""
    return split(read_paragraphs(data / SQUAD))


def split(paragraphs: Iterable[Paragraph]) -> Parts:
    """Holds articles out by their titles: the same always, whatever their order.

    Raises ValueError when there are no more articles than are held out.
    """
    by_article: dict[str, list[Paragraph]] = {}
    for paragraph in paragraphs:
        by_article.setdefault(paragraph.article, []).append(paragraph)
    titles = iter(sorted(by_article, key=lambda title: hashlib.sha256(title.encode()).digest()))

    def take(articles: int) -> tuple[Paragraph, ...]:
        chosen = [title for _, title in zip(range(articles), titles, strict=False)]
        return tuple(paragraph for title in chosen for paragraph in by_article[title])

    calibration = take(CALIBRATION_ARTICLES)
    indexed = take(INDEXED_ARTICLES)
    absent = take(ABSENT_ARTICLES)
    training = take(len(by_article))
    if not training:
        held_out = CALIBRATION_ARTICLES + INDEXED_ARTICLES + ABSENT_ARTICLES
        raise ValueError(
            f"{len(by_article)} articles are too few: {held_out} are held out, by their titles"
        )
    return Parts(training, calibration, indexed, absent)


def read_paragraphs(path: Path) -> Iterator[Paragraph]:
    """The paragraphs of a file in SQuAD's format, JSON, compressed when its name ends in .gz.

    Answers are their texts alone: where they stand is looked for. Empty paragraphs are left out.
    Raises ValueError when it is of another format.
    """
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    whole: Any = json.loads(raw)
    try:
        for article in whole["data"]:
            for paragraph in article["paragraphs"]:
                questions = tuple(_question(row) for row in paragraph["qas"])
                if paragraph["context"].strip():
                    yield Paragraph(article["title"], paragraph["context"], questions)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not in SQuAD's format: {error!r}") from error


def _question(row: Mapping[str, Any]) -> Question:
    answers = dict.fromkeys(answer["text"] for answer in row["answers"])
    return Question(row["id"], row["question"].strip(), tuple(answers))


def passages(paragraph: Paragraph) -> list[str]:
    """The passages that the product would make of the paragraph."""
    return cut(paragraph.text, CHUNKING)
