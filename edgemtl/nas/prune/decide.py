"""Deciding how many channels each group keeps, for whatever net: a run's design or a user's own module."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgemtl.errors import UserError, unknown_name
from edgemtl.models import TaskNet
from edgemtl.nas.evaluation import Limit
from edgemtl.nas.prune.criterion import LossCriterion, TrialOutcome
from edgemtl.nas.prune.cut import Group
from edgemtl.nas.prune.fit import Fit, by_map, by_trial, min_channels
from edgemtl.nas.prune.groups import cut
from edgemtl.nas.prune.map import PruneMap, first_channels, measure_curves, open_map
from edgemtl.nas.prune.trials import Trials
from edgemtl.progress import Progress, Report, silent
from edgemtl.spaces import Cost
from edgemtl.units import Budget, Floor, find_quantity, format_quantity, parse_budget, parse_floor

__all__ = [
    "LATENCY_TRIES",
    "Kept",
    "Prunable",
    "check_feasible",
    "decide",
    "group_rows",
    "resolve_limits",
    "weights_of",
]

USUAL_FLOOR = 0.05
"""What a task without a floor counts as having: one with a floor of 2 % may lose two fifths of what that one may."""
LATENCY_ROUNDS = 8
LATENCY_TRIES = 3
"""Whatever else runs makes an engine slower, never faster: one in time once is in time."""
LATENCY_MARGIN = 0.98
"""Part of a limit in ms that is aimed at: two measurements of one net differ by a little."""

Kept = Mapping[str, int]
Time = Callable[[PruneMap, Kept], Mapping[str, float]]
"""Latency in ms of the engine of a net with so many channels, by task ("": all)."""


@dataclass(frozen=True)
class Prunable:
    """A net that can be pruned: its groups, what judges them, what it costs, and where its sensitivity map lies.

    `cost` gives the cost of all tasks, or of the one that is named, for counts of channels; `key` names the net that
    they leave.
    """

    whole: TaskNet
    groups: Sequence[Group]
    criterion: LossCriterion
    multiple: int
    cost: Callable[[Kept, str | None], Cost]
    key: Callable[[Kept], str]
    map_file: Path
    cache_key: Mapping[str, Any]

    def shares(self, limits: Sequence[Limit], kept: Kept) -> list[float]:
        """What the net with `kept` channels takes of each counted limit."""
        counted = [limit for limit in limits if limit.exact]
        return [self.takes(limit.budget, kept) / limit.value for limit in counted] or [0.0]

    def takes(self, budget: Budget, kept: Kept) -> float:
        """The quantity of a counted budget that the net with `kept` channels takes."""
        return self.cost(kept, budget.task).amount(budget.quantity)

    def net(self, known: PruneMap, kept: Kept) -> TaskNet:
        """The net with the most important `kept` channels of each group; `recalibrate` it before it is used."""
        fewer = {group.name: kept[group.name] for group in self.groups if kept[group.name] < group.size}
        return cut(self.whole, self.groups, first_channels(known.orders, fewer))

    def map(self, report: Report = silent) -> PruneMap:
        """The whole sensitivity map, measured where it was not before."""
        args = self.whole, self.groups, self.criterion
        return measure_curves(*args, self.multiple, self.orders(), self.map_file, self.cache_key, report)

    def orders(self) -> PruneMap:
        """The map as far as it was measured, with the order of channels at least."""
        return open_map(self.whole, self.groups, self.criterion, self.map_file, self.cache_key)

    def fit(self, known: PruneMap, limits: Sequence[Limit], weights: Mapping[str, float]) -> Fit:
        """The channels that the map advises under counted limits."""
        return by_map(self.groups, known, weights, self.multiple, partial(self.shares, limits))


def resolve_limits(
    subject: Prunable, budgets: Sequence[str], floors: Sequence[str], target: str
) -> tuple[tuple[Limit, ...], tuple[Floor, ...]]:
    """The limits of what is counted, those of what is timed at their face value, and the floors.

    Raises `UserError` where there is no budget, or one that pruning for this target does not know.
    """
    names = [task.name for task in subject.criterion.source.tasks]
    if not budgets:
        raise UserError("no budget was given: say what the net may take, for example --budget 40%FLOPs")
    limits = []
    for budget in map(parse_budget, budgets):
        if budget.task is not None and budget.task not in names:
            raise unknown_name(f"task in budget {budget.text!r}:", budget.task, names)
        here = budget.device in (None, "host") and budget.runtime in (None, target)
        if find_quantity(budget.quantity).unavailable or not here:
            raise UserError(
                f"budget {budget.text!r}: pruning counts FLOPs, parameters and bytes, and times engines of {target} on "
                "this host: give one of these"
            )
        exact = Limit(budget, 0).exact
        limits.append(Limit(budget, budget.limit(subject.takes(budget, {})) if exact else budget.value))
    return tuple(limits), tuple(parse_floor(text, names) for text in floors)


def check_feasible(subject: Prunable, limits: Sequence[Limit], time: Time, advice: str) -> None:
    """`UserError` for a limit that the net with the fewest channels does not keep, saying what it takes."""
    kept = min_channels(subject.groups, subject.multiple)
    ms = time(subject.orders(), kept) if any(not limit.exact for limit in limits) else {}
    for limit in limits:
        takes = subject.takes(limit.budget, kept) if limit.exact else ms[limit.budget.task or ""]
        if takes > limit.value:
            allowed, reached = (format_quantity(limit.budget.quantity, value) for value in (limit.value, takes))
            raise UserError(
                f"budget {limit.budget.text!r} allows {allowed}, but pruning reaches {reached} at the least: "
                f"raise the budget, or {advice}"
            )


def decide(
    subject: Prunable,
    limits: Sequence[Limit],
    weights: Mapping[str, float],
    fast: bool,
    trials: Trials,
    time: Time,
    report: Report,
) -> tuple[PruneMap, Fit]:
    """How many channels each group keeps, and the map that says which."""
    timed, counted = ([each for each in limits if each.exact is exact] for exact in (False, True))
    known = subject.map(report) if fast or timed else subject.orders()
    if timed:
        counted.append(_counted(subject, known, counted, timed, weights, time, report))
    if fast:
        return known, subject.fit(known, counted, weights)

    def criterion(kept: Kept, group: Group, allowed: Mapping[str, float]) -> TrialOutcome:
        key = f"{subject.key(kept)}/{','.join(group.tasks)}"
        outcome = trials.known(key, allowed)
        if outcome is None:
            outcome = subject.criterion.losses(subject.net(known, kept), group.tasks, allowed)
            trials.keep(key, outcome)
        return outcome

    allowance = {task: 1 / weight for task, weight in weights.items()}
    shares = partial(subject.shares, counted)
    return known, by_trial(subject.groups, criterion, known.base, allowance, subject.multiple, shares, report)


def weights_of(preference: Mapping[str, float], floors: Sequence[Floor]) -> dict[str, float]:
    """How much a relative rise of each task's loss counts: more for a preferred task, and for one with a low floor."""
    drops = {floor.task: floor.max_drop for floor in floors}
    return {
        task: USUAL_FLOOR * max(0.01, weight) / max(0.001, drops.get(task, USUAL_FLOOR))
        for task, weight in preference.items()
    }


def _counted(
    subject: Prunable,
    known: PruneMap,
    limits: Sequence[Limit],
    timed: Sequence[Limit],
    weights: Mapping[str, float],
    time: Time,
    report: Report,
) -> Limit:
    """The largest limit in FLOPs, by bisection, at which the engine of the net that the map advises is in time."""

    def at_most(flops: float) -> Limit:
        return Limit(Budget("flops", flops, f"{flops:.0f}FLOPs"), flops)

    def in_time(flops: float) -> bool:
        kept = subject.fit(known, [*limits, at_most(flops)], weights).kept
        return any(timed_once(kept) for _ in range(LATENCY_TRIES))

    def timed_once(kept: Kept) -> bool:
        ms = time(known, kept)
        return all(ms[limit.budget.task or ""] <= LATENCY_MARGIN * limit.value for limit in timed)

    low = float(subject.cost(min_channels(subject.groups, subject.multiple), None).flops)
    high = float(subject.cost({}, None).flops)
    if in_time(high):
        return at_most(high)
    for number in range(LATENCY_ROUNDS):
        report(Progress("latency", number, LATENCY_ROUNDS, format_quantity("flops", low)))
        middle = (low + high) / 2
        low, high = (middle, high) if in_time(middle) else (low, middle)
    report(Progress("latency", LATENCY_ROUNDS, LATENCY_ROUNDS, format_quantity("flops", low)))
    return at_most(low)


def group_rows(groups: Sequence[Group], fit: Fit) -> list[dict[str, Any]]:
    """What was decided: channels of every group before and after, and the task that blocked it."""
    return [
        {
            "group": group.name,
            "convolutions": list(group.convolutions),
            "tasks": list(group.tasks),
            "parts": len(group.parts),
            "before": group.size,
            "after": fit.kept[group.name],
            "blocked_by": fit.blocked.get(group.name),
        }
        for group in groups
    ]
