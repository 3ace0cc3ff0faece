"""Late interaction, whose token states are trained.

ColBERT's objective (Khattab and Zaharia 2020, section 3.3) over the queries and passages of a
batch, with passages that look like the right one among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor, nn

from encoders.encoder import Floats
from encoders.location import locate
from training.lora import AdaptedBert, tokenizer_of
from training.nearest import BASE
from training.padding import by_length, padded
from training.queries import Asked

RANK: Final = 32
MAX_TOKENS: Final = 256
# Scores are means of cosines: the right passage and one like it differ by a few hundredths.
TEMPERATURE: Final = 0.02
# How much of the way from the base to the trained weights is kept (Wortsman et al. 2022, "Robust
# fine-tuning of zero-shot models"). On the six collections of docs/training.md, on none of which it
# was trained, .6 / .45 / .3 / 0 close 4.7 / 4.2 / 3.8 / 3.1 % of the gap to the best order, and
# something relevant is among the first three of .835 / .836 / .830 / .821 of their questions (the
# mean of the six).
SHARE: Final = 0.6
# Texts of about one length that are read at once.
_MOST_ROWS: Final = 16
# A cosine is never this low.
_EXCLUDED: Final = -1e4
# The id of the base's first whole word, "the": before it lie special tokens, punctuation and single
# characters. From there on words come in the order of their frequency in English.
_FIRST_WORD: Final = 1996


class LateInteraction(nn.Module):
    """States of length 1, one a token; how much each token of a query counts is given."""

    word_weights: Tensor

    def __init__(self, folder: Path, tokenizer: Tokenizer, rank: int = RANK) -> None:
        """folder: the base's; a BERT. tokenizer: cuts what it is given and does not pad it."""
        super().__init__()
        self.bert = AdaptedBert(folder, rank)
        self._tokenizer = tokenizer
        weights = torch.from_numpy(rarity(tokenizer.get_vocab_size()))
        self.register_buffer("word_weights", weights, persistent=False)

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """The adapters, by the names they have in an adapter's file."""
        return list(self.bert.trained())

    def loss(self, batch: Sequence[Asked]) -> Tensor:
        """Mean over queries of -log p(its passage), among all passages of the batch but the others
        of its own paragraph."""
        asked, asked_content, weights = self([row.query for row in batch])
        like = [passage for row in batch for _, passage in row.like]
        read, read_content, _ = self([row.passage for row in batch] + like)
        scores = max_sim(asked, weights * asked_content, read, read_content)
        own = torch.tensor([row.paragraph for row in batch])
        of_like = torch.tensor([paragraph for row in batch for paragraph, _ in row.like])
        owners = torch.cat((own, of_like))
        right = torch.arange(len(batch))
        excluded = owners[None, :] == own[:, None]
        excluded[right, right] = False
        logits = (scores / TEMPERATURE).masked_fill(excluded.to(scores.device), _EXCLUDED)
        return nn.functional.cross_entropy(logits, right.to(scores.device))

    def forward(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """States float32 [n, length, dimension], 1 where a token is content [n, length], and
        weights above 0 [n, length]."""
        encodings = self._tokenizer.encode_batch(list(texts))
        longest = max(map(len, encodings))
        content = torch.zeros(len(encodings), longest)
        ids = torch.zeros(len(encodings), longest, dtype=torch.int64)
        for at, encoding in enumerate(encodings):
            content[at, : len(encoding)] = 1 - torch.tensor(encoding.special_tokens_mask)
            ids[at, : len(encoding)] = torch.tensor(encoding.ids)
        states = by_length(encodings, _MOST_ROWS, lambda rows: self._states(rows, longest))
        device = states.device
        weights = self.word_weights[ids.to(device)]
        return nn.functional.normalize(states, dim=-1), content.to(device), weights

    def _states(self, encodings: list[Encoding], longest: int) -> Tensor:
        """Last hidden states, float32 [n, longest, dimension]."""
        rows = padded(encodings, self.word_weights.device)
        states = self.bert(rows.ids, rows.mask).float()
        return nn.functional.pad(states, (0, 0, 0, longest - rows.ids.shape[1]))

    @torch.inference_mode()
    def scores(self, query: str, passages: Sequence[str]) -> Tensor:
        """float32 [passages], on the CPU."""
        asked, asked_content, weights = self([query])
        read, read_content, _ = self(passages)
        return max_sim(asked, weights * asked_content, read, read_content)[0].cpu()


def max_sim(asked: Tensor, weights: Tensor, read: Tensor, content: Tensor) -> Tensor:
    """Weighted mean over the query's tokens of the best cosine: [queries, passages].

    asked: [queries, query tokens, dimension]; weights: [queries, query tokens], 0 where a token
    does not count; read: [passages, tokens, dimension]; content: [passages, tokens].
    """
    queries, length, dimension = asked.shape
    passages, tokens, _ = read.shape
    flat = asked.reshape(-1, dimension) @ read.reshape(-1, dimension).T
    cosines = flat.reshape(queries, length, passages, tokens)
    best = cosines.masked_fill(content[None, None] == 0, -1.0).amax(-1)
    # A query without a word scores 0: 0 / 0 would spoil all that is trained.
    sums = weights.sum(-1, keepdim=True).clamp_min(1e-6)
    return torch.einsum("qlp,ql->qp", best, weights) / sums


def rarity(vocabulary: int) -> Floats:
    """How much each word of the base counts, above 0: float32 [vocabulary].

    log(1 + rank), rank being the word's place by frequency. By Zipf's law a frequency is inverse to
    its rank, so this is the word's inverse document frequency, but for a constant.
    """
    ranks = np.maximum(np.arange(vocabulary) - _FIRST_WORD + 1, 1)
    weights: Floats = np.log1p(ranks).astype(np.float32)
    return weights


def new_late_interaction(device: str = "cpu") -> LateInteraction:
    """The base with adapters that change nothing yet, drawn on the CPU wherever it runs."""
    folder = locate(BASE).folder
    return LateInteraction(folder, tokenizer_of(folder, MAX_TOKENS)).to(device)
