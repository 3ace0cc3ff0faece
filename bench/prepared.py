"""Requests of the workers, serialised: texts of the evaluation data in messages."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rag.embedder.v1 import embedder_pb2
from rag.reranker.v1 import reranker_pb2

from bench.datasets import rust_book, squad_questions

EMBEDDER: Final = "rag.embedder.v1.EmbedderService"
RERANKER: Final = "rag.reranker.v1.RerankerService"
EMBED_TEXTS: Final = f"/{EMBEDDER}/EmbedTexts"
SCORE_PASSAGES: Final = f"/{RERANKER}/ScorePassages"
SHORT_PASSAGE_CHARACTERS: Final = (100, 400)
SEED: Final = 7


def short_passages(data: Path) -> list[str]:
    """The Rust book's paragraphs of prose of 100 to 400 characters, in an order drawn once."""
    shortest, longest = SHORT_PASSAGE_CHARACTERS
    blocks = (block for document in rust_book(data) for block in document.text.split("\n\n"))
    prose = (" ".join(block.split()) for block in blocks if block[:1].isalpha())
    texts = [text for text in prose if shortest <= len(text) <= longest]
    random.Random(SEED).shuffle(texts)
    return texts


def questions(data: Path, count: int) -> list[str]:
    """Distinct questions of SQuAD, drawn once."""
    return random.Random(SEED).sample(squad_questions(data), count)


def query_calls(texts: Sequence[str]) -> tuple[bytes, ...]:
    """EmbedTexts of one question each, interactive."""
    return tuple(_embed([text], embedder_pb2.INPUT_TYPE_QUERY) for text in texts)


def mixed_calls(asked: Sequence[str], passages: Sequence[str]) -> tuple[bytes, ...]:
    """EmbedTexts of one text each, interactive: a question and a short passage in turn."""
    return tuple(
        call
        for question, passage in zip(asked, passages, strict=False)
        for call in (
            _embed([question], embedder_pb2.INPUT_TYPE_QUERY),
            _embed([passage], embedder_pb2.INPUT_TYPE_PASSAGE),
        )
    )


def bulk_calls(texts: Sequence[str], size: int) -> tuple[bytes, ...]:
    """EmbedTexts of `size` texts each in the bulk lane."""
    return tuple(
        _embed(batch, embedder_pb2.INPUT_TYPE_PASSAGE, embedder_pb2.LANE_BULK)
        for batch in _batches(texts, size)
    )


def score_calls(asked: Sequence[str], passages: Sequence[str], size: int) -> tuple[bytes, ...]:
    """ScorePassages of `size` passages each."""
    return tuple(
        reranker_pb2.ScorePassagesRequest(
            query=question, passages=batch, truncate=True
        ).SerializeToString()
        for question, batch in zip(itertools.cycle(asked), _batches(passages, size), strict=False)
    )


def _batches(texts: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Full ones; what is left over at the end is left out."""
    return (texts[start : start + size] for start in range(0, len(texts) - size + 1, size))


def _embed(
    texts: Sequence[str],
    input_type: embedder_pb2.InputType.ValueType,
    lane: embedder_pb2.Lane.ValueType = embedder_pb2.LANE_INTERACTIVE,
) -> bytes:
    request = embedder_pb2.EmbedTextsRequest(
        texts=texts, input_type=input_type, lane=lane, truncate=True
    )
    return bytes(request.SerializeToString())
