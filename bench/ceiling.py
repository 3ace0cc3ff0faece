"""What this machine can multiply at most: the model's own matrix products and nothing else.

A token of a BERT-shaped encoder costs, in floating-point operations (a multiplication and an
addition are two):

    layers · (2 · (4 · hidden² + 2 · hidden · intermediate) + 4 · length · hidden)

Four products of hidden × hidden are the attention's query, key, value and output, two of
hidden × intermediate the feed-forward part; 4 · length · hidden are the attention's scores and
their sum over a text of `length` tokens. Embeddings, softmax, normalisation and GELU are left
out, and so is padding: they are what an encoder may lose, not what it has to do.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from encoders.machine import available_cpus
from encoders.openvino_import import import_openvino

Library = Literal["torch", "openvino"]
Precision = Literal["fp32", "bf16"]
Device = Literal["cpu", "cuda"]

# Rows of one product. On a CPU more were no faster; a GPU wants tens of thousands to be full.
ROWS: Final = {"cpu": 1024, "cuda": 65_536}
PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "bf16")
GIGA: Final = 1e9


@dataclass(frozen=True, slots=True)
class Shape:
    """An encoder's size, as its config.json names it."""

    hidden: int
    intermediate: int
    layers: int

    @classmethod
    def read(cls, folder: Path) -> Shape:
        """Of the model in `folder`. Raises KeyError when its config names things otherwise."""
        config = json.loads((folder / "config.json").read_bytes())
        return cls(config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"])

    def products(self) -> list[tuple[int, int]]:
        """Rows and columns of each weight that every token is multiplied with."""
        attention = [(self.hidden, self.hidden)] * 4
        feed_forward = [(self.hidden, self.intermediate), (self.intermediate, self.hidden)]
        return (attention + feed_forward) * self.layers

    def product_flops(self) -> int:
        """Operations of a token in these products."""
        return sum(2 * rows * columns for rows, columns in self.products())

    def token_flops(self, length: float) -> float:
        """Operations of a token in a text of `length` tokens, attention included."""
        return self.product_flops() + self.layers * 4 * length * self.hidden


def token_length(lengths: Sequence[int]) -> float:
    """The length of the text in which the average token stands: long texts have more of them.

    Raises ZeroDivisionError without tokens.
    """
    return sum(length * length for length in lengths) / sum(lengths)


def products(
    library: Library, device: Device, shape: Shape
) -> Callable[[tuple[Precision, float]], float]:
    """Made ready and warm: a function of precision and seconds to spend that gives GFLOP/s.

    It keeps every CPU of this process's quota busy, or the GPU.
    """
    make = _openvino if library == "openvino" else partial(_torch, device)
    passes = {precision: make(precision, shape) for precision in PRECISIONS}
    for once, _ in passes.values():
        once()

    def gflops(how: tuple[Precision, float]) -> float:
        precision, seconds = how
        once, rows = passes[precision]
        return _rate(once, rows * shape.product_flops(), seconds)

    return gflops


def _rate(once: Callable[[], None], flops: int, seconds: float) -> float:
    started_s = time.perf_counter()
    passes = 0
    while (spent_s := time.perf_counter() - started_s) < seconds:
        once()
        passes += 1
    return passes * flops / spent_s / GIGA


def _torch(device: Device, precision: Precision, shape: Shape) -> tuple[Callable[[], None], int]:
    import torch

    torch.set_num_threads(available_cpus())
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    rows = ROWS[device]
    like: dict[str, Any] = {"dtype": dtype, "device": device}
    # Scaled so that numbers keep their size from product to product.
    weights = [torch.randn(size, **like) / size[0] ** 0.5 for size in shape.products()]
    tokens = torch.randn(rows, shape.hidden, **like)

    def once() -> None:
        with torch.inference_mode():
            states = tokens
            for weight in weights:
                states = states @ weight
        if device == "cuda":
            torch.cuda.synchronize()

    return once, rows


def _openvino(precision: Precision, shape: Shape) -> tuple[Callable[[], None], int]:
    """One pass is one batch for each CPU at once, a thread each, as is fastest there."""
    import numpy as np

    openvino: Any = import_openvino()
    from openvino import opset8 as ops

    draw = np.random.default_rng(0)
    rows, streams = ROWS["cpu"], available_cpus()
    tokens = ops.parameter([rows, shape.hidden], np.float32)
    states = tokens
    for size in shape.products():
        weight = draw.standard_normal(size, np.float32) / np.float32(size[0] ** 0.5)
        states = ops.matmul(states, ops.constant(weight), False, False)
    compiled = openvino.Core().compile_model(
        openvino.Model([states], [tokens]),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
            "INFERENCE_NUM_THREADS": streams,
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": False,
        },
    )
    requests = [compiled.create_infer_request() for _ in range(streams)]
    for request in requests:
        request.set_input_tensor(
            openvino.Tensor(draw.standard_normal((rows, shape.hidden), np.float32))
        )

    def once() -> None:
        for request in requests:
            request.start_async()
        for request in requests:
            request.wait()

    return once, rows * streams
