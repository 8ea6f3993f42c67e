"""Cheap predictors of what must be measured: ridge or SVR on one-hot options, the better by cross-validation.

Latency has its own predictor, based on counted work.

LINAS (Cummings et al. 2022) and SimQ-NAS (2023) fit such a pair to every metric. Categories come from the space, so
that an option not seen yet is interpolated; FLOPs, parameters and bytes, which are exact, join the features. The
predictor learns the part that the exact costs leave over.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.spaces import Design, Space

__all__ = ["LatencyPredictor", "Predictor", "features"]

_FOLDS = 4
_SHRINKAGE = 0.02
Array = NDArray[np.float64]


def features(space: Space, designs: Sequence[Design]) -> Array:
    """One row a design: one-hot options of every choice, then log FLOPs, parameters and bytes, in all and per task."""
    widths = [len(choice.options) for choice in space.choices]
    starts = np.concatenate(([0], np.cumsum(widths)[:-1]))
    costs = [[d.cost(), *(d.cost([task.name]) for task in space.tasks)] for d in designs]
    counts = [[value for c in row for value in (c.flops, c.params, c.weight_bytes)] for row in costs]
    exact = np.log(np.maximum(counts, 1))  # a task of a user's net may multiply nothing
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


class LatencyPredictor:
    """Latency in ms as a sum of counted work, each kind at a rate of its own: non-negative least squares.

    The kinds are multiply-accumulates of depthwise, 1x1 and larger convolutions and elements written, by precision, and
    the blocks that read another precision than their own. That a rate cannot be negative is what a dozen measured
    designs do not tell a regression on options. Errors are relative; rates are drawn to zero a little, so that work
    not seen yet costs nothing rather than anything. What the sum leaves over is a `Predictor`'s.
    """

    def __init__(self, designs: Sequence[Design], latency_ms: Sequence[float], rows: Array, task: str = "") -> None:
        """Fit to designs, their rows of `features` and their measured latencies, of all tasks or of one `task`."""
        from scipy.optimize import nnls

        self._task = task
        work = [_work(design, task) for design in designs]
        most = {kind: max(w.get(kind, 0.0) for w in work) for kind in sorted({k for w in work for k in w})}
        self._largest = {kind: value for kind, value in most.items() if value > 0}
        table = self._table(work) / np.asarray(latency_ms)[:, None]
        shrinkage = _SHRINKAGE * np.eye(table.shape[1])
        wanted = np.concatenate([np.ones(len(designs)), np.zeros(table.shape[1])])
        self._rates, _ = nnls(np.vstack([table, shrinkage]), wanted)
        self._rest = Predictor(rows, list(np.log(np.asarray(latency_ms) / self._summed(designs))))

    def __call__(self, designs: Sequence[Design], rows: Array) -> Array:
        """Predicted latencies in ms of designs with these rows of `features`."""
        return np.asarray(self._summed(designs) * np.exp(self._rest(rows)))

    def _summed(self, designs: Sequence[Design]) -> Array:
        return np.asarray(self._table([_work(design, self._task) for design in designs]) @ self._rates)

    def _table(self, work: Sequence[Mapping[str, float]]) -> Array:
        """A row a design: its work of each kind as a part of the most that was measured, and 1."""
        return np.array([[*(w.get(kind, 0.0) / most for kind, most in self._largest.items()), 1.0] for w in work])


def _work(design: Design, task: str) -> dict[str, float]:
    """Counted work of a design by kind and precision."""
    work: dict[str, float] = defaultdict(float)
    engine = design.precision["engine"]
    parameters = {block.name: block.parameters for block in design.plan.blocks}
    for block in design.plan.path([task]) if task else design.plan.blocks:
        kind = design.precision[block.parameters]
        precision = kind if kind == "int8" else engine
        work["changes"] += any(
            design.precision.get(parameters.get(source, source), "float") != kind for source in block.inputs
        )
        work[f"attention {engine}"] += block.attention_macs
        work[f"experts {precision}"] += block.experts.macs if block.experts else 0
        for conv in block.convs:
            shape = "depthwise" if conv.groups > 1 else "1x1" if conv.kernel == 1 else "dense"
            work[f"{shape} {precision}"] += conv.macs
            work[f"elements {precision}"] += conv.outputs * conv.height * conv.width
    return work
