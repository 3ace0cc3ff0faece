"""torch: runs every model everywhere, and is what other backends are measured against."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.graphs import Graph
from encoders.machine import multiplies_bf16
from encoders.options import Precision, PrecisionName
from encoders.tokenizing import IntArray

_DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16}
# bf16 must beat fp32 by this much to be chosen: less is noise of a shared machine.
_WORTHWHILE: Final = 1.15
# Where throughput levels off: measured on 2 cores for the CPU; a GPU wants thousands of rows.
_CPU_BATCH_TOKENS: Final = 2048
_GPU_BATCH_TOKENS: Final = 65_536
# Rows and tokens of the trial: one bulk batch.
_TRIAL_SHAPE: Final = (4, 64)
_TRIAL_RUNS: Final = 3


class TorchBackend:
    """Runs a graph on CUDA where there is one, else on the CPU."""

    def __init__(self, graph: Graph, *, precision: PrecisionName, threads: int) -> None:
        torch.set_num_threads(threads)
        self._threads = threads
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision: Precision
        self.precision, self.reason = _choose(graph, precision, self._device)
        self.batch_tokens = _GPU_BATCH_TOKENS if self._device.type == "cuda" else _CPU_BATCH_TOKENS
        self._graph = graph.cast(_DTYPES[self.precision]).to(self._device)

    @property
    def description(self) -> str:
        """Such as "torch bf16, 2 threads"."""
        place = "CUDA" if self._device.type == "cuda" else f"{self._threads} threads"
        return f"torch {self.precision}, {place}"

    def run(self, arrays: Mapping[str, IntArray]) -> NDArray[np.float32]:
        """The graph's output for the arrays it takes."""
        with torch.inference_mode():
            inputs = [torch.from_numpy(arrays[name]) for name in self._graph.inputs]
            output: torch.Tensor = self._graph(*(array.to(self._device) for array in inputs))
            result: NDArray[np.float32] = output.cpu().numpy()
        return result

    def close(self) -> None:
        """Nothing to release: the memory goes with the object."""


def _choose(graph: Graph, precision: PrecisionName, device: torch.device) -> tuple[Precision, str]:
    if precision != "auto":
        return precision, "as set"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported():
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
