"""torch: runs every model everywhere, and is what other backends are measured against."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.graphs import Graph
from encoders.options import Precision, PrecisionName
from encoders.tokenizing import IntArray
from encoders.torch_trials import (
    LEAST_COSINE,
    choose_precision,
    fitting_batch_tokens,
    least_cosine,
    trial_batch,
)
from encoders.unpadding import Packing, UnpaddedAttention

log = logging.getLogger(__name__)

_DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Where throughput levels off on 2 cores.
_CPU_BATCH_TOKENS: Final = 2048
# A GPU computes as many tokens of a small model in the 1 to 2 ms that starting its hundred
# kernels takes the host; smaller batches would leave it waiting.
_GPU_BATCH_TOKENS: Final = 65_536


class TorchBackend:
    """Runs a graph on CUDA where there is one, else on the CPU.

    streams: how many threads may call `run` at once. On a GPU two: one pads its batch and
        starts its kernels while the other waits for its own, so that the GPU always has
        work queued. On the CPU one: each calling thread would get `threads` threads of its own.
    unpad: whether to try to compute without padding; None is on a GPU.

    Raises torch.OutOfMemoryError when the GPU's memory does not hold the model.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        precision: PrecisionName,
        threads: int,
        unpad: bool | None = None,
    ) -> None:
        torch.set_num_threads(threads)
        self._threads = threads
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        on_gpu = self._device.type == "cuda"
        self.streams = 2 if on_gpu else 1
        self.precision: Precision
        self.precision, self.reason = choose_precision(graph, precision, self._device)
        self._graph = graph.to(self._device)
        self._unpadded: UnpaddedAttention | None = None
        if on_gpu if unpad is None else unpad:
            self._unpadded, attention_reason = self._try_unpadding()
            self.reason = f"{self.reason}; {attention_reason}"
        else:
            graph.cast(_DTYPES[self.precision])
        self.batch_tokens = _CPU_BATCH_TOKENS
        if on_gpu:
            self.batch_tokens = fitting_batch_tokens(
                self.run, graph, _GPU_BATCH_TOKENS, self.streams
            )

    @property
    def description(self) -> str:
        """Such as "torch bf16, 2 threads" or "torch bf16, CUDA, unpadded"."""
        place = "CUDA" if self._device.type == "cuda" else f"{self._threads} threads"
        return f"torch {self.precision}, {place}{', unpadded' if self._unpadded else ''}"

    def run(self, arrays: Mapping[str, IntArray]) -> NDArray[np.float32]:
        """The graph's output for the arrays it takes; only its last step waits for a GPU.

        On a GPU by up to `streams` threads at once.
        """
        with torch.inference_mode():
            result: NDArray[np.float32] = self._compute(arrays).cpu().numpy()
        return result

    def close(self) -> None:
        """Nothing to release: the memory goes with the object."""

    def _compute(self, arrays: Mapping[str, IntArray]) -> Tensor:
        inputs = tuple(self._send(arrays[name]) for name in self._graph.inputs)
        if self._unpadded is None:
            output: Tensor = self._graph(*inputs)
            return output
        packing = Packing.of(arrays["attention_mask"])
        places, bounds = self._send(packing.places), self._send(packing.bounds)
        return self._unpadded.run(inputs, places, bounds, packing.longest)

    def _send(self, array: NDArray[Any]) -> Tensor:
        """The array where the model is. From pinned memory, a GPU fetches it by itself."""
        tensor = torch.from_numpy(array)
        if self._device.type != "cuda":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)

    @torch.inference_mode()
    def _try_unpadding(self) -> tuple[UnpaddedAttention | None, str]:
        """Casts the graph; the attention that works without padding, if it does what the
        padded one does in float32, and why or why not.
        """
        batch, directions = trial_batch(self._graph), self._graph.directions
        reference = directions(self._compute(batch).cpu())
        self._graph.cast(_DTYPES[self.precision])
        try:
            self._unpadded = UnpaddedAttention(self._graph)
        except ValueError as error:
            return None, f"padded: {error}"
        try:
            ours = directions(self._compute(batch).cpu())
            cosine = least_cosine(ours, reference, batch["attention_mask"])
            fault = None if cosine >= LEAST_COSINE else f"cosine to float32 is {cosine:.5f}"
        except Exception as error:  # of the kernel, of the driver or of the model
            log.info("no attention without padding", exc_info=True)
            fault = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        if fault is not None:
            self._unpadded.undo()
            return None, f"padded: unpadded, {fault}"
        return self._unpadded, f"unpadded: cosine to padded float32 {cosine:.5f}"
