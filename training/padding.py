"""Texts of many lengths for a model: padded, and read with others of about their length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Encoding
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Padded:
    """int64 [n, length] each: token ids, 1 where a token is, 1 where it is of a pair's second."""

    ids: Tensor
    mask: Tensor
    types: Tensor


def padded(encodings: Sequence[Encoding], device: torch.device) -> Padded:
    """To the longest of them, with zeros."""
    length = max(map(len, encodings))
    ids = torch.zeros(len(encodings), length, dtype=torch.int64)
    mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
    for at, encoding in enumerate(encodings):
        size = len(encoding)
        ids[at, :size] = torch.tensor(encoding.ids)
        types[at, :size] = torch.tensor(encoding.type_ids)
        mask[at, :size] = 1
    return Padded(ids.to(device), mask.to(device), types.to(device))


def by_length(
    encodings: Sequence[Encoding], most_rows: int, read: Callable[[list[Encoding]], Tensor]
) -> Tensor:
    """What `read` makes of each, a row of the result, in their order.

    It is given at most `most_rows` of about one length: all at once, a third of what is computed
    for passages of prose would be padding.
    """
    order = sorted(range(len(encodings)), key=lambda at: len(encodings[at]))
    groups = [order[at : at + most_rows] for at in range(0, len(order), most_rows)]
    rows = torch.cat([read([encodings[at] for at in group]) for group in groups])
    return rows[torch.tensor(order).argsort()]
