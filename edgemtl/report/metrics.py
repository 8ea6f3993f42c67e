"""Which score of a task decides and which way is better, from the names that stand in a result file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgemtl.results import Entry
from edgemtl.tasks import Metric, all_kinds, find_kind

__all__ = ["Change", "changes", "deciding_metric", "format_change", "format_metric", "known_metric", "worst_change"]


def known_metric(name: str) -> Metric | None:
    """The metric called `name` of any task kind; None for a name that no kind has."""
    return next((metric for kind in all_kinds() for metric in kind.metrics if metric.name == name), None)


def deciding_metric(scores: Mapping[str, float], kind: str | None = None) -> Metric | None:
    """The metric that decides a task: the first of its kind, else of the kind whose names fit, else the first known."""
    kinds = all_kinds() if kind is None else (find_kind(kind), *all_kinds())
    for each in kinds:
        if each.metrics[0].name in scores:
            return each.metrics[0]
    return next((metric for name in scores if (metric := known_metric(name))), None)


@dataclass(frozen=True)
class Change:
    """A task's deciding score against the baseline's; `relative` is above zero where it is better."""

    task: str
    metric: Metric
    value: float
    baseline: float

    @property
    def relative(self) -> float:
        """Relative change, its sign by the metric's direction."""
        change = (self.value - self.baseline) / max(abs(self.baseline), 1e-12)
        return change if self.metric.higher_is_better else -change


def changes(entry: Entry, baseline: Entry, kinds: Mapping[str, str], name: str | None = None) -> list[Change]:
    """Every task's change, for the tasks that both designs score in the metric: called `name`, or the deciding one."""
    rows = []
    for task, scores in entry.metrics.items():
        metric = deciding_metric(scores, kinds.get(task)) if name is None else known_metric(name)
        base = baseline.metrics.get(task, {})
        if metric is not None and metric.name in scores and metric.name in base:
            rows.append(Change(task, metric, scores[metric.name], base[metric.name]))
    return rows


def worst_change(rows: list[Change]) -> Change | None:
    """The task that lost most, None for no task."""
    return min(rows, key=lambda change: change.relative, default=None)


def format_metric(name: str, value: float) -> str:
    """A score with its unit, four significant figures at most."""
    metric = known_metric(name)
    unit = f" {metric.unit}" if metric and metric.unit else ""
    return f"{value:.3f}{unit}" if abs(value) < 10 else f"{value:.2f}{unit}"


def format_change(fraction: float) -> str:
    """A relative change in percent, always signed: `+1.2 %`."""
    percent = round(100 * fraction, 1)
    return f"{percent:+.1f} %" if percent else "0.0 %"
