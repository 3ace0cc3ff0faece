"""OpenVINO: the default on CPUs. One graph with dynamic shapes, read from an export, run by
several threads at once.

Measured on 2 cores with AVX-512 bf16 (tokens/s of MiniLM-L6 by batch, one stream of two
threads / two streams of one thread, both together): 1x16 7,100 / 10,200, 1x112 12,500 /
14,900, 2x112 13,600 / 15,200, 8x112 15,000 / 15,000. Streams of one thread have no
barrier between threads, so that small batches are as fast as large ones and a busy
neighbour stops one stream, not all. Static shapes were at most 8 % faster, at 0.2 s of
compilation and 130 MB each, so there are none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from encoders.machine import multiplies_bf16
from encoders.openvino_import import import_openvino
from encoders.options import Precision, PrecisionName
from encoders.tokenizing import IntArray

# For each thread of a stream: 2x112 was within 1 % of any larger batch on one thread, 4x112
# within 2 % on two. Larger batches only wait longer.
_BATCH_TOKENS_PER_THREAD: Final = 256
# Parameters in matrix products that one thread reads and multiplies with a short question's 16
# tokens in some 5 ms: MiniLM-L6 (10.6 million) took 3.1 ms here with both threads busy. So L6
# and L12 get one thread a stream, BERT-base (85 million) 4, a model of 300 million 12.
_PARAMETERS_PER_THREAD: Final = 25_000_000
# Each batch costs Python some 0.3 ms, one at a time whatever the threads: 16 streams of 15 ms
# batches use a third of that. Beyond, streams get more threads.
_MOST_STREAMS: Final = 16
_HINTS: Final = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoBackend:
    """Runs an exported graph on the CPU, `streams` threads at once.

    weights: `model.xml` of an export, its `model.bin` beside it (mapped, not copied).
    threads: of all streams together.
    streams: 0 chooses by the model's size.
    """

    def __init__(
        self,
        weights: Path,
        *,
        inputs: tuple[str, ...],
        precision: PrecisionName,
        threads: int,
        streams: int = 0,
    ) -> None:
        core: Any = import_openvino().Core()
        graph = core.read_model(weights)
        self.precision: Precision
        self.precision, precision_reason = _choose(core, precision)
        self.streams, streams_reason = _choose_streams(graph, threads, streams)
        self.reason = f"{precision_reason}; {streams_reason}"
        per_stream = max(1, threads // self.streams)
        self.batch_tokens = _BATCH_TOKENS_PER_THREAD * per_stream
        self._threads = threads
        self._inputs = inputs
        model: Any = core.compile_model(
            graph,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
                "INFERENCE_NUM_THREADS": max(threads, self.streams),
                "NUM_STREAMS": self.streams,
                # Pinned, several workers on one machine would all sit on its first cores.
                "ENABLE_CPU_PINNING": False,
            },
        )
        # A stream belongs to the thread that runs it; a request to whoever holds it.
        self._requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(self.streams):
            self._requests.put(model.create_infer_request())
        # Once before there are threads: the first conversion of arrays in two of them at once
        # deadlocks (OpenVINO 2026.4's Type.to_dtype waits for a C++ lock while it holds the GIL,
        # which the lock's holder waits for: 9 of 12 processes with eight threads).
        self.run({name: np.ones((1, 8), np.int64) for name in inputs})

    @property
    def description(self) -> str:
        """Such as "openvino bf16, 2 threads"."""
        return f"openvino {self.precision}, {self._threads} threads"

    def run(self, arrays: Mapping[str, IntArray]) -> NDArray[np.float32]:
        """The graph's output for the arrays it takes; a copy, the request's buffer is reused.

        Thread-safe: more threads than streams take turns.
        """
        request = self._requests.get()
        try:
            # Always shared: a request that was given copies once more reads freed memory.
            outputs = request.infer(
                [arrays[name] for name in self._inputs], share_inputs=True, share_outputs=True
            )
            return np.array(outputs[0], np.float32)
        finally:
            self._requests.put(request)

    def close(self) -> None:
        """Nothing to release: the memory goes with the object."""


def _choose_streams(graph: Any, threads: int, wanted: int) -> tuple[int, str]:
    if wanted:
        return wanted, f"{wanted} streams as set"
    parameters = _multiplied_parameters(graph)
    needed = math.ceil(parameters / _PARAMETERS_PER_THREAD)
    per_stream = max(needed, math.ceil(threads / _MOST_STREAMS), 1)
    streams = max(1, threads // per_stream)
    return streams, f"{streams} streams for {parameters / 1e6:.0f} million parameters"


def _multiplied_parameters(graph: Any) -> int:
    """Weights of the graph's matrix products: embeddings are looked up, at no cost."""
    weights = [
        operation.input_value(1).get_partial_shape()
        for operation in graph.get_ops()
        if operation.get_type_name() == "MatMul"
    ]
    return sum(math.prod(shape.to_shape()) for shape in weights if shape.is_static)


def _choose(core: Any, precision: PrecisionName) -> tuple[Precision, str]:
    if precision != "auto":
        return precision, "as set"
    instructions = multiplies_bf16()
    # OpenVINO takes bfloat16 from any CPU with AVX-512, and emulates it on most of them.
    if instructions and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "bf16", f"the CPU multiplies bfloat16 ({instructions})"
    return "fp32", "the CPU has no bfloat16 instructions"
