"""How scores of several tasks are compared: relative changes against a baseline, their mean, the worst of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.tasks.task import Metric, Task

__all__ = ["delta_m", "metric_size", "ratio_of_counts", "relative_change", "remaining_drop", "worst_task"]


def relative_change(
    task: Task, metrics: Mapping[str, float], baseline: Mapping[str, float], metric: Metric | None = None
) -> float:
    """Relative change of a metric (none: the deciding one) against the baseline, above zero where it is better."""
    metric = metric or task.metric
    value, base = metrics[metric.name], baseline[metric.name]
    change = (value - base) / metric_size(base)
    return change if metric.higher_is_better else -change


def remaining_drop(
    task: Task,
    metrics: Mapping[str, float],
    baseline: Mapping[str, float],
    max_drop: float,
    metric: Metric | None = None,
) -> float:
    """The share of a metric (none: the deciding one) that a task may still lose before `max_drop` of the baseline's.

    Zero or below where it has lost that already. It is the inverse of `relative_change`, whichever way is better.
    """
    name = (metric or task.metric).name
    left = max_drop + relative_change(task, metrics, baseline, metric)
    return left * metric_size(baseline[name]) / metric_size(metrics[name])


def metric_size(value: float) -> float:
    """Denominator of a metric's relative change; never zero."""
    return max(abs(value), 1e-12)


def delta_m(
    tasks: Sequence[Task],
    metrics: Mapping[str, Mapping[str, float]],
    baseline: Mapping[str, Mapping[str, float]],
    preference: Mapping[str, float] | None = None,
) -> float:
    """Mean relative change over tasks (M3ViT's delta_m, as a fraction), weighted where a preference is given.

    >>> from edgemtl.tasks import make_task
    >>> depth = make_task("depth", "depth")
    >>> delta_m([depth], {"depth": {"rmse": 0.25}}, {"depth": {"rmse": 0.5}})
    0.5
    """
    weights = {task.name: (preference or {}).get(task.name, 1.0) for task in tasks}
    total = sum(weights[task.name] * relative_change(task, metrics[task.name], baseline[task.name]) for task in tasks)
    return total / sum(weights.values())


def worst_task(
    tasks: Sequence[Task], metrics: Mapping[str, Mapping[str, float]], baseline: Mapping[str, Mapping[str, float]]
) -> tuple[str, float]:
    """The task that lost most against the baseline, and its relative change."""
    changes = {task.name: relative_change(task, metrics[task.name], baseline[task.name]) for task in tasks}
    name = min(changes, key=lambda task: changes[task])
    return name, changes[name]


def ratio_of_counts(metric: Metric, counts: NDArray[Any]) -> float:
    """A metric from counts of right, false and missed labels (K, 3) of K classes or thresholds.

    The mean intersection over union of the classes that have a label or a prediction, or the best F over thresholds;
    0 where there is neither.

    >>> ratio_of_counts(Metric("miou", True, ratio="mean_iou"), np.array([[6, 2, 0], [2, 0, 2]]))
    0.625
    """
    right, false, missed = np.asarray(counts, np.float64).T
    if metric.ratio == "best_f":
        return float((2 * right / np.maximum(2 * right + false + missed, 1)).max())
    union = right + false + missed
    return float((right[union > 0] / union[union > 0]).mean()) if union.any() else 0.0
