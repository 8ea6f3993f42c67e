"""Cheap predictors of what must be measured: ridge or SVR on one-hot options, the better by cross-validation.

LINAS (Cummings et al. 2022) and SimQ-NAS (2023) fit such a pair to every metric. Categories come from the space, so
that an option not seen yet has its place; FLOPs, parameters and bytes, which are exact, join the features. The
predictor learns the part that the exact costs leave over.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.nas._space import Design, Space

__all__ = ["Predictor", "features"]

_FOLDS = 4
Array = NDArray[np.float64]


def features(space: Space, designs: Sequence[Design]) -> Array:
    """One row a design: one-hot options of every choice, then log FLOPs, parameters and bytes, in all and per task."""
    widths = [len(choice.options) for choice in space.choices]
    starts = np.concatenate(([0], np.cumsum(widths)[:-1]))
    costs = [[d.cost(), *(d.cost([task.name]) for task in space.tasks)] for d in designs]
    exact = np.log([[value for c in row for value in (c.flops, c.params, c.weight_bytes)] for row in costs])
    table = np.zeros((len(designs), sum(widths)))
    for row, design in enumerate(designs):
        table[row, starts + space.encode(design)] = 1
    return np.hstack([table, exact])


class Predictor:
    """One regression, fitted to all that was measured so far; `error` is its cross-validated mean absolute error."""

    def __init__(self, rows: Array, values: Sequence[float]) -> None:
        from sklearn.linear_model import Ridge
        from sklearn.model_selection import GridSearchCV, KFold
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVR

        target = np.asarray(values)
        self._mean, self._scale = float(target.mean()), float(target.std()) or 1.0
        scaled = (target - self._mean) / self._scale
        folds = KFold(min(_FOLDS, len(target)), shuffle=True, random_state=0)
        candidates: list[tuple[Any, dict[str, list[float]]]] = [
            (Ridge(), {"ridge__alpha": [1.0, 3.0, 10.0, 30.0, 100.0]}),
            (SVR(gamma="scale", epsilon=0.05), {"svr__C": [1.0, 10.0, 100.0]}),
        ]
        searches = [
            GridSearchCV(make_pipeline(StandardScaler(), model), grid, cv=folds, scoring="neg_mean_absolute_error")
            for model, grid in candidates
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for search in searches:
                search.fit(rows, scaled)
        self._best = max(searches, key=lambda search: float(search.best_score_))
        self.error = -float(self._best.best_score_) * self._scale

    def __call__(self, rows: Array) -> Array:
        """Predictions for rows of `features`."""
        return np.asarray(self._best.predict(rows)) * self._scale + self._mean
