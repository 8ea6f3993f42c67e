"""Deciding how many channels each group of a net keeps under limits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from edgemtl.devices import HOST
from edgemtl.errors import UserError, unknown_name
from edgemtl.nas.evaluation import Limit, check_budgets
from edgemtl.nas.prune.criterion import TrialOutcome
from edgemtl.nas.prune.cut import Group
from edgemtl.nas.prune.fit import Budgeted, Fit, by_map, by_trial
from edgemtl.nas.prune.map import PruneMap, measure_map, open_map
from edgemtl.nas.prune.prunable import Channels, Prunable
from edgemtl.nas.prune.trials import Trials
from edgemtl.progress import Progress, Report
from edgemtl.targets import ExportTarget
from edgemtl.units import Budget, find_quantity, format_quantity, parse_budget

__all__ = ["LATENCY_TRIES", "Decision", "check_feasible", "fit_levels", "fit_map", "resolve_budgets", "task_weights"]

USUAL_FLOOR = 0.05
"""Assumed floor of a task without one: a task with a floor of 2 % may lose two fifths of what it may."""
LATENCY_ROUNDS = 8
LATENCY_TRIES = 3
"""Whatever else runs makes an engine slower, never faster: one in time once is in time."""
LATENCY_MARGIN = 0.98
"""Part of a limit in ms that is aimed at: two measurements of one net differ by a little."""

Time = Callable[[PruneMap, Channels], Mapping[str, float]]
"""Latency in ms of the engine of a net with so many channels, by task ("": all)."""


def resolve_budgets(prunable: Prunable, budgets: Sequence[str], target: ExportTarget) -> tuple[Limit, ...]:
    """The limits of what is counted, and those of what is timed at their face value.

    Raises `UserError` where there is no budget, or one that pruning for this target does not know.
    """
    names, device = [task.name for task in prunable.net.tasks], target.device.name
    if not budgets:
        raise UserError("no budget was given: say what the net may take, for example --budget 40%FLOPs")
    limits = []
    for budget in map(parse_budget, budgets):
        if budget.task is not None and budget.task not in names:
            raise unknown_name(f"task in budget {budget.text!r}:", budget.task, names)
        own = budget.device in (None, device) and budget.runtime in (None, target.traits.name)
        if find_quantity(budget.quantity).unavailable or not own:
            where = "this host" if device == HOST else device
            raise UserError(
                f"budget {budget.text!r}: pruning counts FLOPs, parameters and bytes, and times engines of "
                f"{target.traits.name} on {where}: give one of these"
            )
        check_budgets([budget] if budget.counted else [], target)
        limits.append(Limit(budget, budget.limit(prunable.amount(budget, {})) if budget.counted else budget.value))
    return tuple(limits)


def task_weights(preference: Mapping[str, float], drops: Mapping[str, float]) -> dict[str, float]:
    """How much a relative rise of each task's loss counts: more for a preferred task, and for one that may lose little.

    `drops` are the fractions that tasks with floors may lose.
    """
    return {
        task: USUAL_FLOOR * max(0.01, weight) / max(0.001, drops.get(task, USUAL_FLOOR))
        for task, weight in preference.items()
    }


def check_feasible(prunable: Prunable, limits: Sequence[Limit], time: Time, noun: str) -> None:
    """`UserError` for a limit that the net with the fewest channels does not keep, saying what it takes."""
    least = _budgeted(prunable, limits).least
    ms = time(open_map(prunable), least) if any(not limit.exact for limit in limits) else {}
    for limit in limits:
        amount = prunable.amount(limit.budget, least) if limit.exact else ms[limit.budget.task or ""]
        if amount > limit.value:
            allowed, reached = (format_quantity(limit.budget.quantity, value) for value in (limit.value, amount))
            raise UserError(
                f"budget {limit.budget.text!r} allows {allowed}, but pruning reaches {reached} at the least: "
                f"raise the budget, or prune a smaller {noun}"
            )


def fit_map(prunable: Prunable, prune_map: PruneMap, limits: Sequence[Limit], weights: Mapping[str, float]) -> Fit:
    """The channels that a map advises under counted limits."""
    return by_map(_budgeted(prunable, limits), prune_map, weights)


def fit_levels(
    prunable: Prunable, prune_map: PruneMap, limits: Sequence[Limit], weights: Mapping[str, float], count: int
) -> list[Fit]:
    """Channels that a map advises at up to `count` amounts of FLOPs, most first, in equal ratios.

    From the most that counted limits allow, or the whole net, to the least that can be left; the whole net is none.
    """
    ends = fit_map(prunable, prune_map, limits, weights).channels, _budgeted(prunable, limits).least
    most, least = (prunable.cost(channels, None).flops for channels in ends)
    levels: dict[str, Fit] = {}
    for flops in np.geomspace(most, least, count):
        fit = fit_map(prunable, prune_map, [*limits, _in_flops(float(flops))], weights)
        if prunable.fewer(fit.channels):
            levels.setdefault(repr(fit.channels), fit)
    return list(levels.values())


def _in_flops(flops: float) -> Limit:
    return Limit(Budget("flops", flops, f"{flops:.0f}FLOPs"), flops)


def _budgeted(prunable: Prunable, limits: Sequence[Limit]) -> Budgeted:
    return Budgeted(prunable.groups, prunable.multiple, partial(prunable.shares, limits))


@dataclass(frozen=True)
class Decision:
    """Input of the decisions: the limits, the weight of each task's loss, the trials so far, and the measurer."""

    prunable: Prunable
    limits: Sequence[Limit]
    weights: Mapping[str, float]
    trials: Trials
    time: Time
    report: Report

    def by_map(self) -> tuple[PruneMap, Fit]:
        """The sensitivity map, and the channels that it advises."""
        prune_map = measure_map(self.prunable, self.report)
        return prune_map, fit_map(self.prunable, prune_map, self._counted(prune_map), self.weights)

    def by_trial(self) -> tuple[PruneMap, Fit]:
        """The orders of channels, and the counts that trials on the net found; limits in ms need the map too."""
        timed = any(not limit.exact for limit in self.limits)
        prune_map = measure_map(self.prunable, self.report) if timed else open_map(self.prunable)
        budgeted = _budgeted(self.prunable, self._counted(prune_map))
        allowance = {task: 1 / weight for task, weight in self.weights.items()}
        return prune_map, by_trial(budgeted, partial(self._try, prune_map), prune_map.base, allowance, self.report)

    def _try(self, prune_map: PruneMap, channels: Channels, group: Group, allowed: Mapping[str, float]) -> TrialOutcome:
        counts = hashlib.sha256(json.dumps(dict(channels)).encode()).hexdigest()[:12]
        key = f"{counts}/{','.join(group.tasks)}"
        outcome = self.trials.outcome(key, allowed)
        if outcome is None:
            narrow = self.prunable.narrow(prune_map.orders, channels)
            outcome = self.prunable.criterion.losses(narrow, group.tasks, allowed)
            self.trials.add(key, outcome)
        return outcome

    def _counted(self, prune_map: PruneMap) -> list[Limit]:
        """The counted limits, with one in FLOPs in place of those in ms.

        By bisection it is the largest at which the engine of the net that the map advises is in time.
        """
        timed, counted = ([limit for limit in self.limits if limit.exact is exact] for exact in (False, True))

        def at_most(flops: float) -> list[Limit]:
            return [*counted, _in_flops(flops)]

        def in_time(flops: float) -> bool:
            channels = fit_map(self.prunable, prune_map, at_most(flops), self.weights).channels
            return any(timed_once(channels) for _ in range(LATENCY_TRIES))

        def timed_once(channels: Channels) -> bool:
            ms = self.time(prune_map, channels)
            return all(ms[limit.budget.task or ""] <= LATENCY_MARGIN * limit.value for limit in timed)

        if not timed:
            return counted
        least = _budgeted(self.prunable, counted).least
        low, high = (float(self.prunable.cost(channels, None).flops) for channels in (least, {}))
        if in_time(high):
            return at_most(high)
        for number in range(LATENCY_ROUNDS):
            self.report(Progress("latency", number, LATENCY_ROUNDS, format_quantity("flops", low)))
            middle = (low + high) / 2
            low, high = (middle, high) if in_time(middle) else (low, middle)
        self.report(Progress("latency", LATENCY_ROUNDS, LATENCY_ROUNDS, format_quantity("flops", low)))
        return at_most(low)
