"""Small adapters over small models, made on the spot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.adapters import DOWN, HEAD_BIAS, HEAD_WEIGHT, UP, write_adapter
from encoders.blueprint import Kind

Tensors = dict[str, NDArray[np.float32]]

# Of `tiny_encoder`: states, and the layer between.
WIDTH, INNER = 32, 64
# [out, in] of each linear map of a layer.
_MAPS: Mapping[str, tuple[int, int]] = {
    "attention.self.query": (WIDTH, WIDTH),
    "attention.self.key": (WIDTH, WIDTH),
    "attention.self.value": (WIDTH, WIDTH),
    "attention.output.dense": (WIDTH, WIDTH),
    "intermediate.dense": (INNER, WIDTH),
    "output.dense": (WIDTH, INNER),
}


def tiny_tensors(kind: Kind, *, seed: int = 0, rank: int = 4) -> Tensors:
    """Random ones, large enough to show, for every linear map of two layers."""
    random = np.random.default_rng(seed)
    tensors: Tensors = {}
    for layer in range(2):
        for part, (out, into) in _MAPS.items():
            target = f"encoder.layer.{layer}.{part}"
            tensors[f"{target}.{DOWN}"] = _normal(random, rank, into)
            tensors[f"{target}.{UP}"] = _normal(random, out, rank)
    outputs = {"cross_encoder": 1, "reader": 2}.get(kind)
    if outputs is not None:
        tensors[HEAD_WEIGHT] = _normal(random, outputs, WIDTH)
        tensors[HEAD_BIAS] = _normal(random, outputs)
    return tensors


def tiny_adapter(path: Path, base: Path, kind: Kind, *, seed: int = 0) -> Path:
    """An adapter over a model that `tiny_encoder` made."""
    write_adapter(path, tiny_tensors(kind, seed=seed), kind=kind, base=str(base))
    return path


def _normal(random: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    # What float16 can hold, so that a file says the same as the tensors.
    numbers = random.normal(scale=0.3, size=shape)
    return numbers.astype(np.float16).astype(np.float32)
