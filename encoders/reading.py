"""Where in passages the answer to a question stands, by a model that reads both together.

Spans as in BERT's experiments on SQuAD 2.0 (Devlin et al. 2019, section 4.3): a span scores what
its first token scores as a beginning and its last as an end, and "not here" what the first token
of the row, [CLS], scores as both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from encoders.encoder import Encoder, EncoderModel, Floats, open_encoder
from encoders.options import Runtime
from encoders.tokenizing import IntArray, PairTokenizer, Tokens

# Tokens of a span at most, as in BERT's program for SQuAD.
MAX_SPAN_TOKENS: Final = 30


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """One row of a batch: a question with one passage, tokenised.

    ranges: int64 [passage tokens, 2], each token's characters [start, end) in the passage.
    first: position in the row of the passage's first token.
    """

    tokens: Tokens
    ranges: IntArray
    first: int

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def truncated(self) -> bool:
        """Whether the end of the passage is not read (or of a very long question)."""
        return self.tokens.truncated


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """What the model makes of a passage, of its tokens alone; all numbers are logits.

    begins, ends: float32 [passage tokens], that an answer begins there, ends there.
    nothing: that the passage holds none, comparable to begins[i] + ends[j].
    ranges: as in `Reading`.
    """

    begins: Floats
    ends: Floats
    nothing: float
    ranges: IntArray


@dataclass(frozen=True, slots=True)
class Span:
    """Characters [start, end) of a passage that may be an answer.

    score: log-odds against "not in this passage", as trained; above 0 it leans to an answer.
    """

    start: int
    end: int
    score: float


class PassageReader(EncoderModel):
    """A reader that is loaded. `prepare` is for any threads, `read` for `streams`."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        self._tokenizer = PairTokenizer(
            encoder.blueprint.tokenizer, max_tokens=encoder.blueprint.max_tokens
        )

    @property
    def description(self) -> str:
        """Such as "reader@1a2b3c4d, openvino bf16, 2 threads, reader"."""
        return f"{super().description}, reader"

    def prepare(self, question: str, passages: Sequence[str]) -> list[Reading]:
        """One `Reading` per passage, in order; what is too long is cut. Thread-safe."""
        pairs = self._tokenizer.encode(question, passages)
        return [Reading(pair.tokens, pair.ranges, pair.first) for pair in pairs]

    def read(self, batch: Sequence[Reading]) -> list[Read]:
        """One padded batch of rows, of any questions: a `Read` each, in order.

        Raises FloatingPointError when the model gives anything but numbers.
        """
        logits = self._encoder.run([reading.tokens for reading in batch])
        if not np.isfinite(logits).all():
            raise FloatingPointError("the model gave a logit that is not finite")
        return [_read(reading, row) for reading, row in zip(batch, logits, strict=True)]


def _read(reading: Reading, logits: Floats) -> Read:
    # Copies: a view would keep the whole batch.
    passage = logits[reading.first : reading.first + len(reading.ranges)]
    begins, ends = passage[:, 0].copy(), passage[:, 1].copy()
    return Read(begins, ends, float(logits[0].sum()), reading.ranges)


def best_span(read: Read, start: int, end: int) -> Span | None:
    """The span of the best score whose tokens lie within the characters [start, end).

    The score is begins[i] + ends[j] - nothing, i <= j < i + 30; of equal ones the first, and of
    those that begin together the shortest. None when no token lies there: that part of the
    passage is empty, or was cut off.
    """
    within = (read.ranges[:, 0] >= start) & (read.ranges[:, 1] <= end)
    tokens = np.flatnonzero(within)
    if not len(tokens):
        return None
    first, last = int(tokens[0]), int(tokens[-1])
    beyond = np.full(MAX_SPAN_TOKENS - 1, -np.inf, np.float32)
    ends = np.concatenate((read.ends[first : last + 1], beyond))
    # [tokens, 30]: row i holds the ends of the spans that begin at token i.
    scores = read.begins[first : last + 1, None] + sliding_window_view(ends, MAX_SPAN_TOKENS)
    at, length = divmod(int(scores.argmax()), MAX_SPAN_TOKENS)
    return Span(
        start=int(read.ranges[first + at, 0]),
        end=int(read.ranges[first + at + length, 1]),
        score=float(scores[at, length]) - read.nothing,
    )


def load_passage_reader(name: str, runtime: Runtime | None = None) -> PassageReader:
    """Loads a reader.

    name: "production-rag/reader", or the path of an adapter's file (`*.safetensors`).

    Raises ModelUnusableError, with a message for people.
    """
    return PassageReader(open_encoder(name, "reader", runtime or Runtime()))
