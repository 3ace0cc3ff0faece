"""How sentence-transformers is at its best on a GPU, and our encoder without gRPC."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from bench.contestants import MODEL
from bench.reference import Computed, Setting
from encoders.embedding import load_embedding_model
from encoders.options import Runtime

# The default first, to which others are compared; then what its documentation advises for
# GPUs. FlashAttention-2 unpads there, and its package is not on every machine.
SETTINGS: Final = (
    Setting("fp32", 32, "sdpa"),
    Setting("bf16", 256, "sdpa"),
    Setting("bf16", 2048, "sdpa"),
    Setting("bf16", 256, "flash_attention_2"),
    Setting("bf16", 2048, "flash_attention_2"),
)


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
