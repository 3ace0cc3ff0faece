"""OpenVINO: the default on CPUs. One graph with dynamic shapes, read from an export.

Measured on 2 cores with AVX-512 bf16 (tokens/s of MiniLM-L6, eager torch bf16 beside
it): 1x16 6,400 / 2,600, 2x128 12,900 / 10,000, 8x128 15,400 / 10,200. Static shapes gave
the same there within noise, at 0.2 s of compilation each, so there are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from encoders.machine import multiplies_bf16
from encoders.openvino_import import import_openvino
from encoders.options import Precision, PrecisionName
from encoders.tokenizing import IntArray

# 512 tokens were as fast as 1024 (15,300 and 15,400 tokens/s): larger batches only wait longer.
_BATCH_TOKENS: Final = 1024
_HINTS: Final = {"fp32": "f32", "bf16": "bf16"}


class OpenVinoBackend:
    """Runs an exported graph on the CPU. Not for several threads at once.

    weights: `model.xml` of an export, its `model.bin` beside it (mapped, not copied).
    """

    def __init__(
        self, weights: Path, *, inputs: tuple[str, ...], precision: PrecisionName, threads: int
    ) -> None:
        core: Any = import_openvino().Core()
        self.precision: Precision
        self.precision, self.reason = _choose(core, precision)
        self.batch_tokens = _BATCH_TOKENS
        self._threads = threads
        self._inputs = inputs
        model: Any = core.compile_model(
            core.read_model(weights),
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": _HINTS[self.precision],
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
                # Pinned, several workers on one machine would all sit on its first cores.
                "ENABLE_CPU_PINNING": False,
            },
        )
        self._request: Any = model.create_infer_request()

    @property
    def description(self) -> str:
        """Such as "openvino bf16, 2 threads"."""
        return f"openvino {self.precision}, {self._threads} threads"

    def run(self, arrays: Mapping[str, IntArray]) -> NDArray[np.float32]:
        """The graph's output for the arrays it takes; a copy, the request's buffer is reused."""
        outputs = self._request.infer(
            [arrays[name] for name in self._inputs], share_inputs=True, share_outputs=True
        )
        return np.array(outputs[0], np.float32)

    def close(self) -> None:
        """Nothing to release: the memory goes with the object."""


def _choose(core: Any, precision: PrecisionName) -> tuple[Precision, str]:
    if precision != "auto":
        return precision, "as set"
    instructions = multiplies_bf16()
    # OpenVINO takes bfloat16 from any CPU with AVX-512, and emulates it on most of them.
    if instructions and "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "bf16", f"the CPU multiplies bfloat16 ({instructions})"
    return "fp32", "the CPU has no bfloat16 instructions"
