"""Vectors, and how far they are from those of a reference."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Cosines = NDArray[np.float64]

# What a vector must keep of the float32 one to be served.
LEAST_COSINE: Final = 0.999


def cosines(vectors: Floats, reference: Floats) -> Cosines:
    """Of each row to the reference's row, in float64; rows need not have length 1."""
    a, b = vectors.astype(np.float64), reference.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / lengths)


def largest_cosine_loss(vectors: Floats, reference: Floats) -> float:
    """1 - the smallest cosine of a row to the reference's row, at least 0."""
    return max(0.0, float(1 - cosines(vectors, reference).min()))
