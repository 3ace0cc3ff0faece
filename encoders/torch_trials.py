"""What torch is to do with a model on this machine, found out by trying when it is loaded."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import torch
from torch import Tensor

from encoders.graphs import Graph
from encoders.machine import multiplies_bf16
from encoders.options import Precision, PrecisionName
from encoders.tokenizing import IntArray, Tokens, pad

# bf16 must beat fp32 by this much to be chosen: less is noise of a shared machine.
_WORTHWHILE: Final = 1.15
# Rows and tokens of the trial of speed: one bulk batch.
_TRIAL_SHAPE: Final = (4, 64)
_TRIAL_RUNS: Final = 3
# Tokens of the rows that are computed in two ways: of very different length, one of them alone
# in its block of the kernel, and neighbours that would show if one row saw another.
_TRIAL_LENGTHS: Final = (3, 200, 17, 1, 128, 64)
# The same as for every other backend and precision.
LEAST_COSINE: Final = 0.999
# A batch smaller than this is not worth a GPU; the model does not fit then.
_LEAST_BATCH_TOKENS: Final = 1024


def choose_precision(
    graph: Graph, wanted: PrecisionName, device: torch.device
) -> tuple[Precision, str]:
    """What to compute in, and why. `graph` is in float32 and on the CPU.

    A GPU without bfloat16 (before compute capability 8.0) computes in float32 though it
    may multiply float16 faster: float16 ends at 65,504, which states inside some encoders
    exceed, so it would need a trial of its own with every model.
    """
    if wanted != "auto":
        return wanted, "as set"
    if device.type == "cuda":
        # Emulated, it is slower than float32, and torch counts that as supported by default.
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "the GPU has bfloat16"
        return "fp32", "the GPU has no bfloat16"
    instructions = multiplies_bf16()
    if instructions is None:
        return "fp32", "the CPU has no bfloat16 instructions"
    fp32_s = _trial_s(graph)
    bf16_s = _trial_s(copy.deepcopy(graph).cast(torch.bfloat16))
    ratio = fp32_s / bf16_s
    chosen: Precision = "bf16" if ratio >= _WORTHWHILE else "fp32"
    return chosen, f"the CPU has {instructions}; measured bf16 {ratio:.1f}x as fast as fp32"


def _trial_s(graph: Graph) -> float:
    """Fastest of a few runs, seconds; the first only warms."""
    ones = torch.ones(_TRIAL_SHAPE, dtype=torch.int64)
    taken_s: list[float] = []
    with torch.inference_mode():
        for _ in range(_TRIAL_RUNS + 1):
            started_s = time.perf_counter()
            graph(*(ones for _ in graph.inputs))
            taken_s.append(time.perf_counter() - started_s)
    return min(taken_s[1:])


def trial_batch(graph: Graph) -> dict[str, IntArray]:
    """Rows of very different length, of random tokens: the same at each call."""
    lengths = [min(length, graph.max_tokens) for length in _TRIAL_LENGTHS]
    rng = np.random.default_rng(0)
    return _batch(graph, [rng.integers(0, graph.vocabulary, length) for length in lengths])


def full_batch(graph: Graph, tokens: int) -> dict[str, IntArray]:
    """As many rows of the longest kind as hold `tokens`, at least one."""
    row = np.zeros(graph.max_tokens, np.int64)
    return _batch(graph, [row] * max(1, tokens // graph.max_tokens))


def _batch(graph: Graph, rows: list[IntArray]) -> dict[str, IntArray]:
    texts = [Tokens(ids, np.zeros_like(ids), np.ones(len(ids), np.bool_), 0, False) for ids in rows]
    return pad(texts, max_tokens=graph.max_tokens, pad_id=0)


def least_cosine(ours: Tensor, reference: Tensor, attention_mask: IntArray) -> float:
    """Of the vectors of texts, or of tokens where the mask is 1; NaN where one is not finite."""
    if ours.shape != reference.shape:
        raise ValueError(f"the shape is {tuple(ours.shape)}, not {tuple(reference.shape)}")
    if reference.ndim == 3:
        counts = torch.from_numpy(attention_mask.astype(np.bool_))
        ours, reference = ours[counts], reference[counts]
    return float(torch.cosine_similarity(ours, reference, dim=-1).min())


def fitting_batch_tokens(
    run: Callable[[Mapping[str, IntArray]], object], graph: Graph, most: int, at_once: int
) -> int:
    """The largest batch that the GPU's memory takes, in padded tokens: `most`, or a half of
    it, or a quarter, ...

    run: computes a batch. at_once: batches in memory together.

    Raises torch.OutOfMemoryError when not even a small one fits.
    """
    tokens = most
    while True:
        try:
            run(full_batch(graph, tokens * at_once))
        except torch.OutOfMemoryError:
            if tokens <= _LEAST_BATCH_TOKENS:
                raise
            tokens //= 2
        else:
            return tokens
