"""A cross-encoder: query and passage are read together, and give one number.

Nogueira and Cho, "Passage Re-ranking with BERT" (2019), trained to put the right passage before
some that look like it (a softmax over both, as in Gao, Dai and Callan 2021, "Rethink Training of
BERT Rerankers", section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor, nn

from encoders.adapters import read_adapter
from encoders.location import OWN, locate
from training.lora import AdaptedModel, tokenizer_of
from training.nearest import BASE
from training.padding import by_length, padded
from training.queries import Asked

RANK: Final = 32
# Whose adapters it begins with.
READER: Final = f"{OWN}reader"
# Of query and passage together.
MAX_TOKENS: Final = 256
# Passages of other queries of the step that are wrong too, and easy: few are enough.
OTHERS: Final = 1
# Pairs of about one length that are read at once.
_MOST_ROWS: Final = 24


class CrossEncoder(AdaptedModel):
    """Scores a pair by the state of its first token."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, rank: int = RANK) -> None:
        super().__init__(folder, tokenizer, rank, outputs=1)

    def loss(self, batch: Sequence[Asked]) -> Tensor:
        """Mean over queries of -log p(its passage) among its own, those like it, and the right
        ones of the next queries."""
        pairs = [(row.query, text) for at, row in enumerate(batch) for text in _choices(batch, at)]
        logits = self(pairs).reshape(len(batch), -1)
        right = torch.zeros(len(batch), dtype=torch.int64, device=logits.device)
        return nn.functional.cross_entropy(logits, right)

    def forward(self, pairs: Sequence[tuple[str, str]]) -> Tensor:
        """float32 [n]: log-odds that the passage is right."""
        encodings = self._tokenizer.encode_batch(list(pairs))
        return by_length(encodings, _MOST_ROWS, self._logits)

    def _logits(self, encodings: list[Encoding]) -> Tensor:
        rows = padded(encodings, self.head.weight.device)
        states = self.bert(rows.ids, rows.mask, rows.types)
        logits: Tensor = self.head(states[:, 0].float())
        return logits[:, 0]

    @torch.inference_mode()
    def scores(self, query: str, passages: Sequence[str]) -> Tensor:
        """float32 [passages], on the CPU."""
        logits: Tensor = self([(query, passage) for passage in passages])
        return logits.cpu()


def new_cross_encoder(device: str = "cpu") -> CrossEncoder:
    """The base with the adapters of the shipped reader, which has learnt to read a question with a
    passage, and a head of its own.

    Raises ModelUnusableError when there is no such file.
    """
    folder = locate(BASE).folder
    cross_encoder = CrossEncoder(folder, tokenizer_of(folder, MAX_TOKENS))
    reader = locate(READER).adapter
    if reader is not None:
        cross_encoder.bert.start_from(read_adapter(reader).maps)
    return cross_encoder.to(device)


def _choices(batch: Sequence[Asked], at: int) -> list[str]:
    """The right passage first, then the wrong ones."""
    row = batch[at]
    following = [batch[(at + step) % len(batch)].passage for step in range(1, OTHERS + 1)]
    return [row.passage, *(text for _, text in row.like), *following]
