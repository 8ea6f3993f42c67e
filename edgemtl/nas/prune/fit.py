"""How many channels each group keeps under budgets: from the map at once, or group by group with a criterion."""

from __future__ import annotations

import bisect
import heapq
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgemtl.nas.prune.criterion import TrialOutcome
from edgemtl.nas.prune.cut import Group
from edgemtl.nas.prune.map import PruneMap, counts
from edgemtl.progress import Progress, Report, silent

__all__ = ["Budgeted", "Criterion", "Fit", "Shares", "by_map", "by_trial"]

Shares = Callable[[Mapping[str, int]], Sequence[float]]
"""For counts of channels by group, each budget's share in use: all are 1 or less where the budgets hold."""
Criterion = Callable[[Mapping[str, int], Group, Mapping[str, float]], TrialOutcome]
"""For counts of channels and the group that was cut last, its tasks' losses against limits."""

FIRST_TOLERANCE, GROWTH = 0.25, 3.0
PASSES = 6
CLOSE = 1.25
"""Two tolerances, one that meets the budgets and one that does not, between which no third is looked for."""
TRIED = 15
"""Most counts of one group that a pass chooses from: four trials find the one."""


@dataclass(frozen=True)
class Fit:
    """Channels that each group keeps, all where none is named, and the task that keeps it from losing more, if any."""

    channels: dict[str, int]
    blocked: Mapping[str, str]
    tolerance: float | None = None


@dataclass(frozen=True)
class Budgeted:
    """Groups under budgets: counts of channels are multiples of `multiple`, or whole heads where a group has any."""

    groups: Sequence[Group]
    multiple: int
    shares: Shares

    @property
    def whole(self) -> dict[str, int]:
        """Every group with all its channels."""
        return {group.name: group.size for group in self.groups}

    @property
    def least(self) -> dict[str, int]:
        """The fewest channels that every group can keep."""
        return {group.name: [group.size, *counts(group, self.multiple)][-1] for group in self.groups}

    def excess(self, channels: Mapping[str, int]) -> float:
        """By how much budgets are exceeded, in parts of their limits, summed; 0 where all hold."""
        return sum(max(0.0, share - 1) for share in self.shares(channels))

    def largest_that_holds(self, channels: Mapping[str, int], name: str, possible: Sequence[int]) -> int:
        """The largest count of a group, of falling ones, at which the budgets hold; the last where none does."""
        first = bisect.bisect_left(possible, True, key=lambda count: self.excess({**channels, name: count}) == 0)
        return possible[min(first, len(possible) - 1)]

    def refill(self, channels: Mapping[str, int], cost: Callable[[str, int], float]) -> dict[str, int]:
        """Counts made larger, step by step, where the budgets have room; what relieves most for its use comes first."""
        filled = dict(channels)
        while wider := self._wider(filled, cost):
            _, name, count = max(wider)
            filled[name] = count
        return filled

    def _wider(self, channels: Mapping[str, int], cost: Callable[[str, int], float]) -> list[tuple[float, str, int]]:
        """For every group that may have more channels: the relief by share in use, its name, and its next count."""
        before, wider = max(self.shares(channels)), []
        for group in self.groups:
            possible = [group.size, *counts(group, self.multiple)]
            position = possible.index(channels[group.name])
            if position:
                count = possible[position - 1]
                used = max(self.shares({**channels, group.name: count}))
                if used <= 1:
                    relief = cost(group.name, channels[group.name]) - cost(group.name, count)
                    wider.append((relief / max(used - before, 1e-9), group.name, count))
        return wider


def by_map(budgeted: Budgeted, prune_map: PruneMap, weights: Mapping[str, float]) -> Fit:
    """The counts that keep the budgets at the least expected loss, as the map tells; `weights` are the tasks'.

    Greedy: the cut that costs least for what it saves of the budgets comes first. Between measured counts both grow
    evenly, so that the best cut ends at a measured one, but for the last, which goes no further than it must. Savings
    only shrink as other groups do, so a cut that was looked at before is looked at again only when it comes first.
    """
    by_name = {group.name: group for group in budgeted.groups}

    def cost(name: str, count: int) -> float:
        return sum(weights[task] * rise for task, rise in prune_map.rise(by_name[name], count).items())

    def best_cut(name: str) -> tuple[float, int] | None:
        before, cuts = budgeted.excess(channels), list[tuple[float, int]]()
        for count in (count for count in prune_map.curves[name].rises if count < channels[name]):
            saved = before - budgeted.excess({**channels, name: count})
            if saved > 0:
                cuts.append(((cost(name, count) - cost(name, channels[name])) / saved, count))
        return min(cuts, default=None)

    channels = budgeted.whole
    tie = itertools.count()
    heap = [(best[0], next(tie), name) for name in channels if (best := best_cut(name))]
    heapq.heapify(heap)
    while heap and budgeted.excess(channels) > 0:
        _, _, name = heapq.heappop(heap)
        best = best_cut(name)
        if best is not None and (not heap or best[0] <= heap[0][0]):
            possible = [n for n in counts(by_name[name], budgeted.multiple) if best[1] <= n < channels[name]]
            channels[name] = budgeted.largest_that_holds(channels, name, possible)
            best = best_cut(name)
        if best is not None:
            heapq.heappush(heap, (best[0], next(tie), name))
    channels = budgeted.refill(channels, cost)
    limiting = {
        group.name: _limiting(group, channels, prune_map, weights, budgeted.multiple) for group in by_name.values()
    }
    return Fit(channels, {name: task for name, task in limiting.items() if task is not None})


def _limiting(
    group: Group, channels: Mapping[str, int], prune_map: PruneMap, weights: Mapping[str, float], multiple: int
) -> str | None:
    """The task that the next cut would cost most."""
    fewer = [count for count in counts(group, multiple) if count < channels[group.name]]
    rises = prune_map.rise(group, fewer[0]) if fewer else {}
    return max(rises, key=lambda task: weights[task] * rises[task]) if any(rises.values()) else None


def by_trial(
    budgeted: Budgeted,
    criterion: Criterion,
    base: Mapping[str, float],
    allowance: Mapping[str, float],
    report: Report = silent,
) -> Fit:
    """The counts that a performance-aware oracle lets each group keep (PAGCP, Ye et al. 2023), under budgets.

    One group after the other, what saves most of the budgets first, is cut as far as every task it reaches allows, on
    the net that earlier groups left; bisection finds how far. What a group may cost a task is in proportion to what it
    can save: after groups with a share s of all that those which reach the task could save, its loss may have risen by
    tolerance x allowance x s, so that what one group leaves unused the next may use. That schedule is ours, and makes
    the tolerance the bound on the whole loss; an outer bisection finds the one that meets the budgets. A pass ends as
    soon as they hold, or cannot any more. `base` are the losses of the whole net.
    """
    if budgeted.excess(budgeted.whole) == 0:
        return Fit(budgeted.whole, {}, 0.0)
    one_pass = _Pass.of(budgeted, criterion, base, allowance)
    low, high, best, tolerance, number = 0.0, math.inf, Fit(budgeted.least, {}), FIRST_TOLERANCE, 0
    while math.isinf(high) or (number < PASSES and (low == 0 or high / low > CLOSE)):
        number += 1
        fit = one_pass.run(tolerance, f"pass {number}, tolerance {tolerance:.3g}", report)
        if max(budgeted.shares(fit.channels)) <= 1:
            high, best = tolerance, fit
        else:
            low = tolerance
        tolerance = GROWTH * low if math.isinf(high) else math.sqrt(low * high) if low else high / GROWTH
    filled = budgeted.refill(best.channels, lambda name, count: -float(count))
    return Fit(filled, best.blocked, best.tolerance)


@dataclass(frozen=True)
class _Pass:
    """One pass over the groups, those first that can save most; `shares` are theirs of what each task's could save."""

    budgeted: Budgeted
    criterion: Criterion
    base: Mapping[str, float]
    allowance: Mapping[str, float]
    ordered: Sequence[Group]
    shares: Mapping[str, Mapping[str, float]]

    @classmethod
    def of(
        cls, budgeted: Budgeted, criterion: Criterion, base: Mapping[str, float], allowance: Mapping[str, float]
    ) -> _Pass:
        whole, groups = budgeted.whole, budgeted.groups
        excess = budgeted.excess(whole)
        saves = {name: excess - budgeted.excess({**whole, name: n}) for name, n in budgeted.least.items()}
        reaching = {task: sum(saves[group.name] for group in groups if task in group.tasks) for task in base}
        shares = {g.name: {task: saves[g.name] / max(reaching[task], 1e-9) for task in g.tasks} for g in groups}
        return cls(budgeted, criterion, base, allowance, sorted(groups, key=lambda g: -saves[g.name]), shares)

    def run(self, tolerance: float, title: str, report: Report) -> Fit:
        """The counts that each group is cut to at a tolerance."""
        channels, least, total = self.budgeted.whole, self.budgeted.least, len(self.ordered)
        share, blocked = dict.fromkeys(self.base, 0.0), dict[str, str]()
        for number, group in enumerate(self.ordered):
            if self.budgeted.excess(channels) == 0 or self.budgeted.excess({**channels, **least}) > 0:
                break
            report(Progress("trial", number, total, f"{title}, {group.name}"))
            for task in group.tasks:
                share[task] += self.shares[group.name][task]
            limits = {t: self.base[t] * (1 + tolerance * self.allowance[t] * share[t]) for t in group.tasks}
            channels[group.name], task_in_the_way = self._cut(group, channels, limits)
            if task_in_the_way is not None:
                blocked[group.name] = task_in_the_way
            del least[group.name]
        report(Progress("trial", total, total, title))
        return Fit(channels, blocked, tolerance)

    def _cut(self, group: Group, channels: Mapping[str, int], limits: Mapping[str, float]) -> tuple[int, str | None]:
        """How many channels a group keeps within its tasks' limits and no fewer than budgets ask; what blocks more."""
        every = counts(group, self.budgeted.multiple)
        possible, blocked = every[::-1][:: math.ceil(len(every) / TRIED) or 1][::-1], None
        passed, failed = 0, len(possible) + 1
        while failed - passed > 1:
            middle = (passed + failed) // 2
            outcome = self.criterion({**channels, group.name: possible[middle - 1]}, group, limits)
            if outcome.blocked is None:
                passed = middle
            else:
                failed, blocked = middle, outcome.blocked
        if not passed:
            return channels[group.name], blocked
        within = [count for count in every if count >= possible[passed - 1]]
        return self.budgeted.largest_that_holds(channels, group.name, within), blocked
