"""How scores of several tasks are compared: relative changes against a baseline, their mean, the worst of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgemtl.tasks.task import Task

__all__ = ["delta_m", "relative_change", "remaining_drop", "worst_task"]


def relative_change(task: Task, metrics: Mapping[str, float], baseline: Mapping[str, float]) -> float:
    """Relative change of the task's deciding metric against the baseline, above zero where it is better."""
    value, base = metrics[task.metric.name], baseline[task.metric.name]
    change = (value - base) / _size(base)
    return change if task.metric.higher_is_better else -change


def remaining_drop(task: Task, metrics: Mapping[str, float], baseline: Mapping[str, float], max_drop: float) -> float:
    """The share of its own deciding metric that a task may still lose before it has lost `max_drop` of the baseline's.

    Zero or below where it has lost that already. It is the inverse of `relative_change`, whichever way is better.
    """
    left = max_drop + relative_change(task, metrics, baseline)
    return left * _size(baseline[task.metric.name]) / _size(metrics[task.metric.name])


def _size(value: float) -> float:
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
