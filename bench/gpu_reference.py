"""sentence-transformers at its best on a GPU, and our encoder without gRPC, in one form."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.ceiling import Device, Precision
from bench.contestants import MODEL
from bench.reference import Computed, QueryPassages
from encoders.embedding import load_embedding_model
from encoders.options import Runtime


@dataclass(frozen=True, slots=True)
class Setting:
    """precision: of the weights. batch: texts; they are sorted by length. attention: its name
    in transformers.
    """

    precision: Precision
    batch: int
    attention: str

    @property
    def name(self) -> str:
        """Such as "bf16, batch 256, sdpa"."""
        return f"{self.precision}, batch {self.batch}, {self.attention}"


# The default first, to which others are compared; then what its documentation advises for
# GPUs. FlashAttention-2 unpads there, and its package is not on every machine.
SETTINGS: Final = (
    Setting("fp32", 32, "sdpa"),
    Setting("bf16", 256, "sdpa"),
    Setting("bf16", 2048, "sdpa"),
    Setting("bf16", 256, "flash_attention_2"),
    Setting("bf16", 2048, "flash_attention_2"),
)


def encoder(folder: Path, setting: Setting, device: Device) -> Callable[[Sequence[str]], Computed]:
    """`SentenceTransformer.encode`. Raises what it raises, without FlashAttention for one."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # it would look for a kernel of FlashAttention, long
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), **_loading(setting, device))

    def encode(texts: Sequence[str]) -> Computed:
        started_s = time.perf_counter()
        vectors = model.encode(
            list(texts), batch_size=setting.batch, convert_to_numpy=True, show_progress_bar=False
        )
        return Computed(vectors, time.perf_counter() - started_s)

    return encode


def scorer(
    folder: Path, setting: Setting, device: Device
) -> Callable[[Sequence[QueryPassages]], Computed]:
    """`CrossEncoder.predict` of the pairs of all questions at once, which is its fastest."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), **_loading(setting, device))

    def predict(questions: Sequence[QueryPassages]) -> Computed:
        started_s = time.perf_counter()
        pairs = [(each.query, passage) for each in questions for passage in each.passages]
        scores = model.predict(pairs, batch_size=setting.batch, show_progress_bar=False)
        return Computed(scores, time.perf_counter() - started_s)

    return predict


def ours_alone() -> Callable[[Sequence[str]], Computed]:
    """Our encoder in this process: tokenised, sorted, its streams fed by a thread each."""
    model = load_embedding_model(MODEL, Runtime("torch"))
    model.warm_up()

    def embed(texts: Sequence[str]) -> Computed:
        started_s = time.perf_counter()
        tokens = model.tokenize(texts, "passage")
        batches = batches_by_length(
            [model.padded(len(each)) for each in tokens], model.batch_tokens
        )
        vectors = np.empty((len(texts), model.identity.dimension), np.float32)

        def compute(rows: list[int]) -> None:
            vectors[rows] = model.embed([tokens[row] for row in rows])

        with ThreadPoolExecutor(model.streams) as threads:
            list(threads.map(compute, batches))
        return Computed(vectors, time.perf_counter() - started_s)

    return embed


def batches_by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Positions in batches of at most `budget` padded tokens, longest first, each at least one."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        # The first of a batch is its longest.
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > budget:
            batches.append([])
        batches[-1].append(row)
    return batches


def _loading(setting: Setting, device: Device) -> dict[str, Any]:
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[setting.precision]
    kwargs = {"dtype": dtype, "attn_implementation": setting.attention}
    return {"device": device, "local_files_only": True, "model_kwargs": kwargs}
