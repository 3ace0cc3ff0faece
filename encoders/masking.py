"""Attention masks of which no row is empty, for graphs that OpenVINO runs.

A model with a sliding window (ModernBERT and its kin) lets a token see its neighbours alone. A
padding token further from the text than the window sees nothing: its row of the mask is empty,
and the softmax of nothing is 0 in torch's attention and NaN in OpenVINO's. The next layer
multiplies that NaN by 0, which is NaN, and so it reaches the texts of every batch whose lengths
differ by more than the window. Here such a row sees all tokens instead. Nothing reads what it
computes: padding is masked in the rows of the text.
"""

from __future__ import annotations

from typing import Any, Final

from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

# The name by which transformers knows torch's attention with these masks.
_NAME: Final = "sdpa_no_row_empty"


def fill_empty_rows(model: Any) -> None:
    """Lets a transformer with a sliding window compute with such masks; leaves others alone."""
    if getattr(model.config, "sliding_window", None) is None:
        return
    AttentionInterface.register(_NAME, sdpa_attention_forward)  # again does no harm
    AttentionMaskInterface.register(_NAME, _mask)
    model.set_attn_implementation(_NAME)


def _mask(*args: Any, **named: Any) -> Tensor | None:
    mask = sdpa_mask(*args, **named)
    return None if mask is None else mask | ~mask.any(dim=-1, keepdim=True)
