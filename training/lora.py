"""Low-rank adapters over a frozen BERT: W + B A in place of every linear map W of its layers.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021). The base runs in bfloat16,
the adapters' own weights are float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModel
from transformers.utils.logging import disable_progress_bar

from encoders.adapters import DOWN, HEAD_BIAS, HEAD_WEIGHT, UP
from encoders.adapters import LowRank as LowRankMatrices

# Which linear maps of a layer get one: all of them.
_TARGETS: Final = ("query", "key", "value", "dense")


class LowRank(nn.Module):
    """x → W x + b + B A x, of which A [rank, in] and B [out, rank] learn; B begins as 0."""

    def __init__(self, frozen: nn.Linear, rank: int) -> None:
        """frozen: W and b, which are copied, in bfloat16."""
        super().__init__()
        self.register_buffer("weight", frozen.weight.detach().bfloat16(), persistent=False)
        self.register_buffer("bias", frozen.bias.detach().bfloat16(), persistent=False)
        self.down = nn.Parameter(torch.empty(rank, frozen.in_features))
        self.up = nn.Parameter(torch.zeros(frozen.out_features, rank))
        nn.init.normal_(self.down, std=1 / math.sqrt(frozen.in_features))

    def forward(self, x: Tensor) -> Tensor:
        inner = nn.functional.linear(x, self.down.to(x.dtype))
        base = nn.functional.linear(x, self.weight, self.bias)  # type: ignore[arg-type]
        return base + nn.functional.linear(inner, self.up.to(x.dtype))


class AdaptedBert(nn.Module):
    """The base, frozen, with an adapter in every linear map of its layers."""

    def __init__(self, folder: Path, rank: int) -> None:
        """folder: of a model of the class BertModel, as transformers saves it."""
        super().__init__()
        # It would draw "Loading weights" into the log.
        disable_progress_bar()  # type: ignore[no-untyped-call]
        # "eager": the backward pass of torch's fused attention takes ten times as long on a CPU.
        bert = AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.bfloat16)
        bert.requires_grad_(False)
        self.dimension = int(bert.config.hidden_size)
        self._adapters: dict[str, LowRank] = {}
        for name, module in list(bert.encoder.named_modules(prefix="encoder")):
            if isinstance(module, nn.Linear) and name.rsplit(".", 1)[-1] in _TARGETS:
                parent, _, leaf = name.rpartition(".")
                adapter = LowRank(module, rank)
                setattr(bert.get_submodule(parent), leaf, adapter)
                self._adapters[name] = adapter
        self.bert = bert
        self.eval()  # no dropout: one pass over the data does not overfit so few weights

    def forward(self, ids: Tensor, mask: Tensor, types: Tensor | None = None) -> Tensor:
        """Last hidden states, bfloat16 [n, length, dimension]; all arguments int64 [n, length]."""
        output: Any = self.bert(input_ids=ids, attention_mask=mask, token_type_ids=types)
        states: Tensor = output.last_hidden_state
        return states

    def start_from(self, maps: Mapping[str, LowRankMatrices]) -> None:
        """Goes on from the matrices of an adapter that was trained before, of the same rank."""
        with torch.no_grad():
            for name, adapter in self._adapters.items():
                adapter.down.copy_(torch.from_numpy(maps[name].down))
                adapter.up.copy_(torch.from_numpy(maps[name].up))

    def move_to_base(self, share: float) -> None:
        """Keeps `share`, in 0..1, of the way from the base's weights to those that were trained."""
        with torch.no_grad():
            for adapter in self._adapters.values():
                adapter.up.mul_(share)

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What learns, by the names it has in an adapter's file."""
        for name, adapter in self._adapters.items():
            yield f"{name}.{DOWN}", adapter.down
            yield f"{name}.{UP}", adapter.up


class AdaptedModel(nn.Module):
    """The adapted base and a linear map of its token states; what is trained adds a loss."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, rank: int, *, outputs: int) -> None:
        """folder: the base's; a BERT. tokenizer: cuts what it is given and does not pad it.

        outputs: numbers that the map gives for a token.
        """
        super().__init__()
        self.bert = AdaptedBert(folder, rank)
        self.head = nn.Linear(self.bert.dimension, outputs)
        nn.init.normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        self._tokenizer = tokenizer

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """Adapters and head, by the names they have in an adapter's file."""
        names = {"weight": HEAD_WEIGHT, "bias": HEAD_BIAS}
        head = ((names[name], parameter) for name, parameter in self.head.named_parameters())
        return [*self.bert.trained(), *head]


def tokenizer_of(folder: Path, max_tokens: int) -> Tokenizer:
    """The base's own, without padding; of a pair that is too long it cuts the longer text."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens, strategy="longest_first")
    return tokenizer
