"""Logistic regression, for a handful of features."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

# Newton steps; it has converged after eight.
STEPS: Final = 25
# Keeps the weights finite where the classes can be told apart without a fault.
RIDGE: Final = 1e-3
# A weight changes by no more in a step: where all is told apart, Newton's would grow without end.
MOST_CHANGE: Final = 10.0

Numbers = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


def logistic_regression(features: Numbers, labels: Flags, weights: Numbers) -> Numbers:
    """Bias and weights, float64 [1 + k], of the likeliest logistic model, with a ridge.

    features: [n, k]; weights: [n], how much each row counts. Newton's method, as in Hastie,
    Tibshirani and Friedman, The Elements of Statistical Learning, 2nd edition, section 4.4.1.
    """
    rows = np.column_stack([np.ones(len(features)), features])
    penalty = RIDGE * np.diag([0.0] + [1.0] * features.shape[1])
    beta = np.zeros(rows.shape[1])
    for _ in range(STEPS):
        p = 0.5 * (1 + np.tanh(rows @ beta / 2))
        gradient = rows.T @ (weights * (labels - p)) - penalty @ beta
        hessian = rows.T @ (rows * (weights * p * (1 - p))[:, None]) + penalty
        step = np.linalg.solve(hessian + 1e-9 * np.eye(len(beta)), gradient)
        beta = beta + step * min(1.0, MOST_CHANGE / max(1e-9, float(np.abs(step).max())))
    return beta
