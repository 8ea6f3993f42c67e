"""The search problem: budgets, floors and a preference over a space, as checks on a design."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgemtl.blocks import BlockRecord
from edgemtl.errors import UserError, unknown_name
from edgemtl.nas.evaluation.sensitivity import Sensitivity
from edgemtl.nas.evaluation.stopping import WRONG_CHANCE, Stopped, Watch
from edgemtl.results import EarlyStops, LimitCheck
from edgemtl.spaces import Cost, Design, Option, Space
from edgemtl.tasks import Floor, Task, delta_m, metric_size, relative_change
from edgemtl.units import Budget

__all__ = [
    "COUNTED",
    "Evaluation",
    "LatencyEstimator",
    "LatencyPrediction",
    "LatencyPredictor",
    "Limit",
    "NetDesign",
    "Problem",
    "Requirements",
    "check_floor",
    "check_objectives",
    "non_dominated",
    "timed_scopes",
    "total_violation",
]

Metrics = Mapping[str, Mapping[str, float]]
COUNTED = {"flops": "flops", "params": "params", "bytes": "weight_bytes"}
"""Objectives that are counted, and what a `Cost` calls them."""
OBJECTIVES = ("delta_m", "latency", *COUNTED)
"""Names of objectives, besides those of tasks."""


class NetDesign(Protocol):
    """A net without its weights: its cost, and its facts for results and tables. A `Design` is one."""

    @property
    def precision(self) -> Mapping[str, str]:
        """Precision of the engine and of every block."""
        ...

    @property
    def blocks(self) -> tuple[BlockRecord, ...]:
        """Its blocks, in order of execution."""
        ...

    def cost(self, tasks: str | Sequence[str] | None = None) -> Cost:
        """Exact FLOPs, parameters and bytes of what `tasks` (all by default) run."""
        ...

    def as_json(self) -> Mapping[str, Option]:
        """Identifier among others of its kind."""
        ...


class LatencyPredictor(Protocol):
    """Latencies of designs without their engines, by scope: all tasks under "", and single tasks."""

    @property
    def errors(self) -> Mapping[str, float]:
        """The error of each scope on designs held out: mean absolute, as a fraction."""
        ...

    def predict(self, designs: Sequence[Design], scope: str = "") -> NDArray[np.float64]:
        """Latencies in ms."""
        ...


class LatencyEstimator(LatencyPredictor, Protocol):
    """Latencies of designs on a device that nothing reaches; `errors` are those of the fit, found on `fitted_on`.

    There are no errors where nothing was fitted, and `fitted_on` is None where it was fitted on the device's class.
    """

    @property
    def fitted_on(self) -> str | None:
        """The class of processor and the runtime of the fit, where they are others than the device's."""
        ...

    @property
    def words(self) -> str:
        """Where the latencies are known from, on one line."""
        ...


@dataclass(frozen=True)
class LatencyPrediction:
    """Predicted latencies of one design by scope, and the error of each on designs held out, as a fraction."""

    latency_ms: Mapping[str, float]
    error: Mapping[str, float]


@dataclass(frozen=True)
class Evaluation:
    """Evaluation of one design: its metrics under its precision on the validation split, and its latency there.

    `latency_ms` maps "" (all tasks) and single tasks to the median of the exported engine; it is empty where
    nothing measures the target's engines on their device. Where scoring was `stopped` early, `metrics` are those of the
    images until then, and of floors that were watched what is expected of all images. `latency_error` has the error (a
    fraction, on designs held out) of latencies that were predicted; it is empty where they were measured.
    """

    design: Design
    metrics: Metrics
    latency_ms: Mapping[str, float]
    stopped: Stopped | None = None
    latency_error: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Limit:
    """A budget with its limit in the quantity's own unit (a percentage is resolved against the largest design)."""

    budget: Budget
    value: float

    @property
    def exact(self) -> bool:
        """Whether the quantity is counted rather than measured."""
        return self.budget.counted

    def count(self, design: NetDesign) -> float:
        """The exact quantity of a design."""
        return design.cost(self.budget.task).amount(self.budget.quantity)

    def check(self, value: float) -> LimitCheck:
        """The limit against what a design takes of its quantity."""
        budget, excess = self.budget, _finite(value / self.value - 1)
        return LimitCheck(
            kind="budget",
            text=budget.text,
            quantity=budget.quantity,
            task=budget.task,
            allowed=self.value,
            value=_finite(value),
            excess=excess,
            kept=excess <= 0,
        )

    def amount(self, design: NetDesign, latency_ms: Mapping[str, float]) -> float:
        """The quantity of a net, counted or measured."""
        return self.count(design) if self.exact else latency_ms[self.budget.task or ""]

    def measured(self, evaluation: Evaluation) -> float:
        """The quantity of an evaluated design."""
        return self.amount(evaluation.design, evaluation.latency_ms)


def check_floor(floor: Floor, metrics: Metrics, baseline: Metrics) -> LimitCheck:
    """A floor against a net's metrics, and those of the baseline."""
    value = floor.value(metrics, baseline)
    scale = 1.0 if floor.relative else metric_size(baseline[floor.task.name][floor.metric.name])
    excess = _finite(floor.shortfall(value) / scale)
    return LimitCheck(
        kind="floor",
        text=floor.text,
        quantity="drop" if floor.relative else "score",
        task=floor.task.name,
        allowed=floor.allowed,
        value=_finite(value),
        excess=excess,
        kept=excess <= 0,
        metric=None if floor.relative and floor.decides else floor.metric.name,
        unit="" if floor.relative else floor.metric.unit,
        at_least=floor.at_least,
    )


def total_violation(checks: Iterable[LimitCheck]) -> float:
    """The sum of what broken limits are broken by, each relative; 0 where all are kept."""
    return sum(check.excess for check in checks if not check.kept)


def _finite(value: float) -> float:
    """Replace a value that is not finite by the worst possible one."""
    return value if math.isfinite(value) else 1e9


@dataclass(frozen=True)
class Requirements:
    """The limits of nets, and their order: delta_m and floors refer to the metrics of a `baseline`."""

    tasks: tuple[Task, ...]
    limits: tuple[Limit, ...]
    floors: tuple[Floor, ...]
    preference: Mapping[str, float]
    baseline: Metrics

    def delta_m(self, metrics: Metrics) -> float:
        """Mean relative change against the baseline (a fraction), weighted by the preference."""
        return delta_m(self.tasks, metrics, self.baseline, self.preference)

    def finite(self, metrics: Metrics) -> dict[str, dict[str, float]]:
        """The metrics, with a very bad value in place of any that is NaN or infinite: designs then have an order."""
        return {
            task: {
                name: value if math.isfinite(value) else self._very_bad(task, name) for name, value in scores.items()
            }
            for task, scores in metrics.items()
        }

    def replaced(self, metrics: Metrics) -> tuple[str, ...]:
        """Those of the metrics, as `TASK.METRIC`, that `finite` had to give a value."""
        return tuple(
            f"{task}.{name}"
            for task, scores in metrics.items()
            for name, value in scores.items()
            if value == self._very_bad(task, name)
        )

    def _very_bad(self, task: str, name: str) -> float:
        """The value of a metric that is ten times the baseline's size worse than the baseline."""
        better = {(each.name, metric.name): metric.higher_is_better for each in self.tasks for metric in each.metrics}
        value = self.baseline[task][name]
        return value + 10 * metric_size(value) * (-1 if better.get((task, name), True) else 1)

    def changes(self, metrics: Metrics) -> dict[str, float]:
        """Relative change of every task against the baseline."""
        return {t.name: relative_change(t, metrics[t.name], self.baseline[t.name]) for t in self.tasks}

    @property
    def drops(self) -> dict[str, float]:
        """The most that tasks with floors may lose of their deciding metric, as fractions of the baseline's."""
        drops: dict[str, float] = {}
        for floor in self.floors:
            if floor.decides:
                name = floor.task.name
                drops[name] = min(floor.drop(self.baseline), drops.get(name, math.inf))
        return drops

    def checks(self, design: NetDesign, metrics: Metrics, latency_ms: Mapping[str, float]) -> tuple[LimitCheck, ...]:
        """Every budget, then every floor, against a net."""
        budgets = (limit.check(limit.amount(design, latency_ms)) for limit in self.limits)
        return (*budgets, *(check_floor(floor, metrics, self.baseline) for floor in self.floors))


@dataclass(frozen=True)
class Problem:
    """A space with what its designs must keep and what is better.

    `baseline` are the metrics of the largest design in float; delta_m and floors refer to it. `sensitivity` is what
    one step down in each choice was found to cost, where that is known; `noise` is the standard error of a measured
    delta_m, where a task has one label an image; `watch` is what stops candidates early that cannot keep a floor.
    `latency` predicts latencies, where there is a table; `known_from` says in words what figures are known from.
    `trained_near` are the designs that the supernet's training drew near, where it did: a search begins with them.
    `objectives_given` are names of `OBJECTIVES` or of tasks (their relative changes); none: delta_m and latency, or
    FLOPs where the target does not run here.
    """

    space: Space
    limits: tuple[Limit, ...]
    floors: tuple[Floor, ...]
    preference: Mapping[str, float]
    baseline: Metrics
    measures_latency: bool
    sensitivity: Sensitivity | None = None
    noise: float = 0.0
    watch: Watch | None = None
    latency: LatencyPredictor | None = None
    known_from: Mapping[str, str] = field(default_factory=dict)
    objectives_given: tuple[str, ...] = ()
    trained_near: tuple[Design, ...] = ()

    @property
    def objective_names(self) -> tuple[str, ...]:
        """Names of the objectives, in order."""
        return self.objectives_given or ("delta_m", "latency" if self.measures_latency else "flops")

    @property
    def requirements(self) -> Requirements:
        """The limits of any net, of whichever space."""
        return Requirements(self.space.tasks, self.limits, self.floors, self.preference, self.baseline)

    def delta_m(self, metrics: Metrics) -> float:
        """Mean relative change against the baseline (a fraction), weighted by the preference."""
        return self.requirements.delta_m(metrics)

    def predict_latency(self, design: Design) -> LatencyPrediction | None:
        """The predicted latency of a design; None where nothing predicts it, or a limit lies within its error."""
        if self.latency is None:
            return None
        errors = self.latency.errors
        latency_ms = {scope: float(self.latency.predict([design], scope)[0]) for scope in errors}
        timed = [(limit, limit.budget.task or "") for limit in self.limits if not limit.exact]
        if any(abs(latency_ms[scope] / limit.value - 1) <= errors[scope] for limit, scope in timed):
            return None
        return LatencyPrediction(latency_ms, errors)

    def affordable(self, design: Design) -> bool:
        """Whether a design keeps every budget that is counted."""
        return all(limit.count(design) <= limit.value for limit in self.limits if limit.exact)

    def cheapest(self) -> Design:
        """The smallest net in the uniform precision that comes nearest to every counted budget."""
        exact = [limit for limit in self.limits if limit.exact]
        designs = self.space.uniform(self.space.smallest())
        return min(designs, key=lambda d: max((limit.count(d) / limit.value for limit in exact), default=0.0))

    def feasible(self, evaluation: Evaluation) -> bool:
        """Whether an evaluated design keeps every budget and floor."""
        return all(check.kept for check in self.checks(evaluation))

    def violation(self, evaluation: Evaluation) -> float:
        """The sum of relative excesses over budgets and of drops below floors; 0 where all hold."""
        return total_violation(self.checks(evaluation))

    @property
    def seeks_speed(self) -> bool:
        """Whether quality is only to be kept: every task has a floor, none is preferred, and nothing has a budget."""
        all_floored = {floor.task.name for floor in self.floors} == {task.name for task in self.space.tasks}
        return all_floored and not self.limits and len({*self.preference.values()}) == 1

    def rank(self, evaluation: Evaluation) -> tuple[float, float]:
        """Order of evaluations that cost alike, the best first: how far limits are broken, then minus delta_m."""
        return self.violation(evaluation), -self.delta_m(evaluation.metrics)

    def order(self, evaluation: Evaluation) -> tuple[float, float]:
        """Order of evaluations, the best first: how far limits are broken, then minus delta_m; or speed, if sought."""
        return (self.violation(evaluation), self.speed(evaluation)) if self.seeks_speed else self.rank(evaluation)

    def checks(self, evaluation: Evaluation) -> tuple[LimitCheck, ...]:
        """Every budget, then every floor, against an evaluated design."""
        return self.requirements.checks(evaluation.design, evaluation.metrics, evaluation.latency_ms)

    def changes(self, metrics: Metrics) -> dict[str, float]:
        """Relative change of every task against the baseline."""
        return self.requirements.changes(metrics)

    def objectives(self, evaluation: Evaluation) -> tuple[float, ...]:
        """Objectives to minimise: what is better where it is more counts negative."""
        return tuple(self._objective(name, evaluation) for name in self.objective_names)

    def _objective(self, name: str, evaluation: Evaluation) -> float:
        if name == "delta_m":
            return -self.delta_m(evaluation.metrics)
        if name == "latency":
            return evaluation.latency_ms[""]
        return self.count(name, evaluation.design) if name in COUNTED else -self.changes(evaluation.metrics)[name]

    def count(self, name: str, design: NetDesign) -> float:
        """One of the objectives `COUNTED` of a design."""
        return float(getattr(design.cost(), COUNTED[name]))

    @property
    def cost(self) -> str:
        """The cost that decides at equal quality: the first objective that is one, else latency or FLOPs."""
        costs = (name for name in self.objective_names if name == "latency" or name in COUNTED)
        return next(costs, "latency" if self.measures_latency else "flops")

    def speed(self, evaluation: Evaluation) -> float:
        """The `cost` of an evaluated design."""
        return self._objective(self.cost, evaluation)

    def early_stops(self, evaluations: Sequence[Evaluation]) -> EarlyStops | None:
        """The account of evaluations that were stopped early; None where no floor could stop one."""
        if self.watch is None:
            return None
        stopped = [each.stopped for each in evaluations if each.stopped]
        return EarlyStops(
            floors=tuple(watched.floor.text for watched in self.watch.floors),
            designs=len(stopped),
            images_saved=sum(each.total - each.images for each in stopped),
            images=self.watch.images * len(evaluations),
            wrong_chance=min(1.0, WRONG_CHANCE * len(evaluations)),
        )


def check_objectives(names: Sequence[str], tasks: Sequence[str], is_timed: bool) -> tuple[str, ...]:
    """Names of objectives, checked; `UserError` for one alone, an unknown one, or a latency that nothing measures."""
    for name in names:
        if name not in OBJECTIVES and name not in tasks:
            raise unknown_name("objective", name, [*OBJECTIVES, *tasks])
    if names and (len(names) < 2 or len({*names}) < len(names)):
        raise UserError(f"objectives {', '.join(names)} given: give two or more different ones, or none (the default)")
    if "latency" in names and not is_timed:
        raise UserError("objective latency: engines are not timed for this device here; give flops")
    return tuple(names)


def timed_scopes(budgets: Iterable[Budget]) -> list[str]:
    """Task sets to time: all tasks together, "", and each single task that a budget in ms names."""
    return ["", *sorted({b.task for b in budgets if not b.counted and b.task})]


def non_dominated(points: Sequence[tuple[float, ...]]) -> list[int]:
    """Indices of the points that no other one beats in every coordinate (smaller is better), in order."""

    def beaten(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return all(y <= x for x, y in zip(a, b, strict=True)) and a != b

    return [i for i, p in enumerate(points) if not any(beaten(p, q) for q in points) and p not in points[:i]]
