"""Batches without their padding: the rows one after the other, attention kept within each.

The attention is torch's own `varlen_attn`, FlashAttention-2 as it comes with torch's CUDA
builds: the flash-attn package has no wheels on PyPI, and sentence-transformers unpads with
that package alone. transformers calls it through its AttentionInterface, and what it needs
to know of the rows travels as the keyword arguments that FlashAttention's own path uses.

The kernel wants a GPU (compute capability 8.0 or later) and bfloat16. Whether it and the
model at hand go together is found out by trying, see `torch_trials`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from encoders.graphs import Graph, first_position
from encoders.tokenizing import IntArray

# The name by which transformers knows the attention below. It makes no mask for such a name.
_NAME: Final = "unpadded"
# What models pass down and this attention does right without.
_IGNORED: Final = frozenset({"deterministic", "position_ids", "cu_seq_lens_k", "max_length_k"})


@dataclass(frozen=True, slots=True)
class Packing:
    """Where the tokens of a padded batch lie, known on the host: finding out on a GPU waits for it.

    places: int64 [tokens], positions in the padded batch taken as one row.
    bounds: int32 [rows + 1], where each row begins among the tokens, and the end.
    longest: tokens of the longest row.
    """

    places: IntArray
    bounds: NDArray[np.int32]
    longest: int

    @classmethod
    def of(cls, attention_mask: IntArray) -> Self:
        """Of a batch padded on the right; `attention_mask` is [rows, length]."""
        lengths = attention_mask.sum(axis=1)
        bounds = np.zeros(len(lengths) + 1, np.int32)
        np.cumsum(lengths, out=bounds[1:])
        return cls(np.flatnonzero(attention_mask), bounds, int(lengths.max()))


class UnpaddedAttention:
    """Lets the transformer of a graph run without padding, until `undo`.

    Raises ValueError for a model that cannot: one whose attention transformers does not
    exchange, or whose own head reads certain positions of each row, as cross-encoders do.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._model: Any = graph.transformer.model
        if not graph.reads_token_states:
            raise ValueError("its head reads the first token of each row")
        if not self._model.is_backend_compatible():
            raise ValueError("its attention cannot be exchanged")
        self._first_position = first_position(self._model)
        self._before = self._model.config._attn_implementation
        AttentionInterface.register(_NAME, _attention)  # again does no harm
        self._model.set_attn_implementation(_NAME)
        if self._model.config._attn_implementation != _NAME:  # it only warns
            raise ValueError("its attention cannot be exchanged")

    def undo(self) -> None:
        """The transformer takes padded batches again."""
        self._model.set_attn_implementation(self._before)

    def run(
        self, arrays: tuple[Tensor, ...], places: Tensor, bounds: Tensor, longest: int
    ) -> Tensor:
        """What `graph(*arrays)` gives, computed without the padding; nothing waits for the GPU.

        arrays: the padded inputs; places, bounds, longest: their `Packing`.
        """
        named = dict(zip(self._graph.inputs, arrays, strict=True))
        rows, length = named["input_ids"].shape
        features: dict[str, Any] = {
            name: named[name].flatten()[places][None]
            for name in ("input_ids", "token_type_ids")
            if name in named
        }
        features |= {
            # Rows begin in the first column, so the column is the position.
            "position_ids": (places % length + self._first_position)[None],
            "cu_seq_lens_q": bounds,
            "cu_seq_lens_k": bounds,
            "max_length_q": longest,
            "max_length_k": longest,
        }
        packed: Tensor = self._graph.transformer(features)["token_embeddings"][0]
        states = packed.new_zeros(rows * length, packed.shape[-1])
        states[places] = packed
        return self._graph.answer({**named, "token_embeddings": states.view(rows, length, -1)})


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """transformers' form of an attention: [1, heads, tokens, head size] → [1, tokens, heads, ...].

    sliding_window: tokens seen on each side, the own one included, as transformers counts.

    Raises ValueError for anything it would have to leave out.
    """
    causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    unknown = [name for name in others.keys() - _IGNORED if others[name] is not None]
    if causal or dropout or unknown:
        raise ValueError(f"causal={causal}, dropout={dropout}, {unknown} are not done unpadded")
    side = -1 if sliding_window is None else sliding_window - 1
    output = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        cu_seq_lens_q,
        cu_seq_lens_q,
        max_length_q,
        max_length_q,
        scale=scaling,
        window_size=(side, side),
    )
    return cast(Tensor, output)[None], None
