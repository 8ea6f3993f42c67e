"""Floors: limits that tasks have of their own, on what they lose or on a metric's value, and how they are written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from edgemtl.errors import UserError, brief, unknown_name
from edgemtl.tasks.scores import relative_change
from edgemtl.tasks.task import Metric, Task

__all__ = ["MOST_DROP", "Floor", "named_metric", "parse_floor"]

MOST_DROP = 99.99
"""The largest drop that a floor allows: 9999 %."""
TEXT_LIMIT = 300
_FLOOR = re.compile(r"(?P<scope>[^=<>]*)(?P<sign>[=<>])(?P<amount>.*)")
_PERCENT = re.compile(r"(\d{1,4}(?:\.\d{1,9})?)%")
_VALUE = re.compile(r"-?(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})")
_SHAPES = (
    f"write TASK=PERCENT, 0 % to {100 * MOST_DROP:.0f} %, for example depth=2%, or in quotes TASK.METRIC>VALUE or "
    "TASK.METRIC<VALUE in the metric's own unit, for example 'semseg.miou>0.5'"
)

Metrics = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Floor:
    """The worst that one `metric` of a task may be.

    Where it is `relative`, `allowed` is the fraction of the baseline's metric that may be lost (0.02 is 2 %); else it
    is the worst value itself, in the metric's unit, whatever the baseline has.
    """

    task: Task
    metric: Metric
    allowed: float
    relative: bool = True

    @property
    def text(self) -> str:
        """As on the command line: `depth=2%`, `depth.abs_rel=2%`, `semseg.miou>0.5`."""
        scope = f"{self.task.name}.{self.metric.name}"
        if self.relative:
            scope = self.task.name if self.decides else scope
            return f"{scope}={_plain(round(100 * self.allowed, 9))}%"
        return f"{scope}{'>' if self.metric.higher_is_better else '<'}{_plain(self.allowed)}"

    @property
    def decides(self) -> bool:
        """Whether it is on the metric that decides its task."""
        return self.metric == self.task.metric

    @property
    def at_least(self) -> bool:
        """Whether `allowed` is the least that is allowed, and not the most."""
        return not self.relative and self.metric.higher_is_better

    def value(self, metrics: Metrics, baseline: Metrics) -> float:
        """The amount that the floor limits: the fraction lost against the baseline, or the metric itself."""
        own = metrics[self.task.name]
        return -self.change(metrics, baseline) if self.relative else own[self.metric.name]

    def change(self, metrics: Metrics, baseline: Metrics) -> float:
        """Relative change of its metric against the baseline, above zero where it is better."""
        return relative_change(self.task, metrics[self.task.name], baseline[self.task.name], self.metric)

    def shortfall(self, value: float) -> float:
        """The amount by which a `value` misses the floor; 0 or less where that is kept."""
        return self.allowed - value if self.at_least else value - self.allowed

    def drop(self, baseline: Metrics) -> float:
        """The fraction of the baseline's metric that may be lost; below zero where the baseline itself misses it."""
        if self.relative:
            return self.allowed
        own = baseline[self.task.name]
        return -relative_change(self.task, {**own, self.metric.name: self.allowed}, own, self.metric)

    def worst(self, baseline: Metrics) -> float:
        """The worst value of the metric that keeps the floor."""
        if not self.relative:
            return self.allowed
        base = baseline[self.task.name][self.metric.name]
        return base - abs(base) * self.allowed * (1 if self.metric.higher_is_better else -1)


def parse_floor(text: str, tasks: Sequence[Task]) -> Floor:
    """Read `depth=2%`, `depth.abs_rel=2%`, `semseg.miou>0.5` or `depth<0.9`: without a metric it is the deciding one.

    Absolute floors point where their metric is better, and the value itself is allowed. Raises `UserError` for another
    direction, an unknown task or metric, and for no amount.

    >>> from edgemtl.tasks import make_task
    >>> parse_floor("depth=2%", [make_task("depth", "depth")]).allowed
    0.02
    >>> parse_floor("depth<0.90", [make_task("depth", "depth")]).text
    'depth.rmse<0.9'
    """
    match = _FLOOR.fullmatch(text) if len(text) <= TEXT_LIMIT else None
    amount = match and (_PERCENT if match["sign"] == "=" else _VALUE).fullmatch(match["amount"])
    if match is None or amount is None:
        raise UserError(f"floor {brief(text)} is not understood{_hint(text)}: {_SHAPES}")
    name, dot, metric_name = match["scope"].partition(".")
    task = next((task for task in tasks if task.name == name), None)
    if task is None:
        raise unknown_name("task in floor", name, [task.name for task in tasks])
    metric = next((each for each in task.metrics if each.name == metric_name), None) if dot else task.metric
    if metric is None:
        raise unknown_name(f"metric of task {name} in floor", metric_name, [each.name for each in task.metrics])
    if match["sign"] == "=":
        return Floor(task, metric, float(amount[1]) / 100)
    better, sign = ("higher", ">") if metric.higher_is_better else ("lower", "<")
    if match["sign"] != sign:
        right = f"{name}.{metric.name}{sign}{amount[0]}"
        raise UserError(f"floor {brief(text)}: {better} is better of {metric.name}, so a floor on it is {right!r}")
    return Floor(task, metric, float(amount[0]) + 0.0, relative=False)  # never -0


def named_metric(text: str) -> str:
    """The metric that a floor's text names; empty where it names none.

    >>> named_metric("depth.abs_rel=2%"), named_metric("depth<0.9")
    ('abs_rel', '')
    """
    return re.split("[=<>]", text)[0].partition(".")[2]


def _hint(text: str) -> str:
    """The likeliest mistake, where one can be told."""
    if re.search(r"\s", text):
        return ", no space belongs in it"
    if ">=" in text or "<=" in text:
        return ", it is > or < alone, and allows the value itself"
    return "" if re.search("[=<>]", text) else ", it has no amount (without quotes a shell takes > and < for itself)"


def _plain(value: float) -> str:
    """All digits of a number, without an exponent, and no zeros at the end."""
    digits = f"{Decimal(repr(value)):f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits
