"""The reader: where in a passage the answer to a question stands, or that it stands not there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from encoders.location import locate
from training.examples import Row
from training.lora import AdaptedModel, tokenizer_of
from training.nearest import BASE
from training.padding import padded

RANK: Final = 32
# Of question and passage together.
MAX_TOKENS: Final = 256
# A logit that no softmax sees, and that float32 sums hold.
_EXCLUDED: Final = -1e4

Flags = NDArray[np.bool_]


class Reader(AdaptedModel):
    """Scores, for each token, that the answer begins and that it ends there; the first token
    stands for "no answer here"."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, rank: int = RANK) -> None:
        super().__init__(folder, tokenizer, rank, outputs=2)

    def encode(self, pairs: Sequence[tuple[str, str]]) -> list[Encoding]:
        """The tokens of each (question, passage), the passage cut where both are too long."""
        return list(self._tokenizer.encode_batch(list(pairs)))

    def loss(self, batch: Sequence[Row]) -> Tensor:
        """Mean over rows of -log p(begins) - log p(ends), both summed over all places where the
        answer stands: people marked the text, and which of its places they meant is not known
        (Clark and Gardner 2018, section 3.3).
        """
        encodings = self.encode([(row.question, row.passage) for row in batch])
        begins = np.zeros((len(batch), max(map(len, encodings))), np.bool_)
        ends = np.zeros_like(begins)
        for at, (row, encoding) in enumerate(zip(batch, encodings, strict=True)):
            mark(encoding, row, begins[at], ends[at])
        logits = self(encodings)
        losses = _marginal(logits[..., 0], begins) + _marginal(logits[..., 1], ends)
        return losses.mean()

    def forward(self, encodings: Sequence[Encoding]) -> Tensor:
        """float32 [n, length, 2]: begins, ends. -10,000 at the question's tokens and padding."""
        rows = padded(encodings, self.head.weight.device)
        states = self.bert(rows.ids, rows.mask, rows.types)
        # float32: sums over tokens of bfloat16 logits would be coarse.
        logits: Tensor = self.head(states.float())
        allowed = rows.types == 1
        allowed[:, 0] = True
        return logits.masked_fill(~allowed[..., None], _EXCLUDED)


def _marginal(logits: Tensor, marked: Flags) -> Tensor:
    """-log of the summed probability of the marked tokens: [n] of [n, length] and its flags."""
    wrong = torch.from_numpy(~marked).to(logits.device)
    right = logits.masked_fill(wrong, -torch.inf)
    return torch.logsumexp(logits, -1) - torch.logsumexp(right, -1)


def mark(encoding: Encoding, row: Row, begins: Flags, ends: Flags) -> None:
    """Sets the tokens where an answer begins and ends; the first token where there is none, or
    where each was cut off. begins, ends: bool [at least as many as tokens], all false.
    """
    found = False
    for first, last in _places(row):
        begin = encoding.char_to_token(first, 1)
        end = encoding.char_to_token(last - 1, 1)
        if begin is not None and end is not None:
            begins[begin] = ends[end] = found = True
    if not found:
        begins[0] = ends[0] = True


def _places(row: Row) -> Iterator[tuple[int, int]]:
    """Ranges of characters of the passage in which an answer stands, word for word."""
    for answer in row.answers:
        at = row.passage.find(answer)
        while at >= 0:
            yield at, at + len(answer)
            at = row.passage.find(answer, at + 1)


def pair_tokenizer(max_tokens: int = MAX_TOKENS) -> Tokenizer:
    """The base's own; of a pair that is too long the end of the longer text is cut, mostly the
    passage's."""
    return tokenizer_of(locate(BASE).folder, max_tokens)


def new_reader(device: str = "cpu") -> Reader:
    """The base with adapters that change nothing yet, drawn on the CPU wherever it runs."""
    return Reader(locate(BASE).folder, pair_tokenizer()).to(device)
