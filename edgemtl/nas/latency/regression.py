"""Ridge regression in closed form, its strength by leaving each row out; and how alike two rankings are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ridge", "fit_ridge", "kendall_tau"]

Array = NDArray[np.float64]
_STRENGTHS = tuple(float(10.0**power) for power in np.arange(-3, 4.5, 0.5))


@dataclass(frozen=True)
class Ridge:
    """A linear model of columns that are scaled to mean 0 and deviation 1; `start` is the mean of what was fitted.

    It predicts nothing outside the values that were fitted, `least` to `most`.
    """

    means: Array
    scales: Array
    weights: Array
    start: float
    least: float
    most: float

    def __call__(self, rows: Array) -> Array:
        """Predictions for rows (n, columns)."""
        predicted = (rows - self.means) / self.scales @ self.weights + self.start
        return np.asarray(np.clip(predicted, self.least, self.most))


def fit_ridge(rows: Array, values: Array, sample_weights: Array | None = None) -> Ridge:
    """A ridge regression of `values` (n,) on `rows` (n, columns), of the strength whose leave-one-out error is least.

    The error of leaving row i out is its residual over 1 - h_i, with h the diagonal of the hat matrix (Golub, Heath and
    Wahba 1979). A column that never changes has no say.
    """
    weights = np.ones(len(values)) if sample_weights is None else sample_weights / sample_weights.mean()
    means = np.average(rows, axis=0, weights=weights)
    scales = np.sqrt(np.average((rows - means) ** 2, axis=0, weights=weights))
    scales[scales < 1e-12] = 1.0
    start = float(np.average(values, weights=weights))
    root = np.sqrt(weights)
    table, wanted = (rows - means) / scales * root[:, None], (values - start) * root
    energies, axes = np.linalg.eigh(table.T @ table)
    turned = table @ axes
    share = weights / weights.sum()  # of the mean, which every row takes part in
    best: tuple[float, Array] | None = None
    for strength in _STRENGTHS:
        inverse = 1 / (np.maximum(energies, 0) + strength)
        fitted = axes @ (inverse * (turned.T @ wanted))
        hat = np.minimum((turned**2) @ inverse + share, 0.999)
        error = float(np.mean(((wanted - table @ fitted) / (1 - hat)) ** 2))
        if best is None or error < best[0]:
            best = error, fitted
    assert best is not None
    return Ridge(means, scales, best[1], start, float(values.min()), float(values.max()))


def kendall_tau(first: Sequence[float] | Array, second: Sequence[float] | Array) -> float:
    """Kendall's tau-b of two rankings (1938, 1945): 1 where every pair stands alike, -1 where none does.

    0 where one of them ranks nothing.
    """
    a, b = (np.sign(np.subtract.outer(values, values)) for values in (np.asarray(first), np.asarray(second)))
    ranked = float(np.sqrt(np.abs(a).sum() * np.abs(b).sum()))
    return float((a * b).sum()) / ranked if ranked else 0.0
