"""How many channels each group keeps under budgets: from the map at once, or group by group with a judge."""

from __future__ import annotations

import bisect
import heapq
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edgemtl.nas.prune.criterion import TrialOutcome
from edgemtl.nas.prune.groups import Group
from edgemtl.nas.prune.map import PruneMap, counts
from edgemtl.progress import Progress, Report, silent

__all__ = ["Fit", "Shares", "by_map", "by_trial", "min_channels"]

Kept = dict[str, int]
Shares = Callable[[Mapping[str, int]], Sequence[float]]
"""For counts of channels by group, what each budget's quantity is of its limit: all are 1 or less where they hold."""

FIRST_TOLERANCE, GROWTH = 0.25, 3.0
PASSES = 6
CLOSE = 1.25
"""Two tolerances, one that meets the budgets and one that does not, between which no third is looked for."""
TRIED = 15
"""Most counts of one group that a pass chooses from: four trials find the one."""


@dataclass(frozen=True)
class Fit:
    """Channels that each group keeps, and the task that keeps it from losing more (where one was found)."""

    kept: Kept
    blocked: Mapping[str, str]
    tolerance: float | None = None


def min_channels(groups: Sequence[Group], multiple: int) -> Kept:
    """The least that every group can keep."""
    return {group.name: [group.size, *counts(group, multiple)][-1] for group in groups}


def by_map(
    groups: Sequence[Group], known: PruneMap, weights: Mapping[str, float], multiple: int, shares: Shares
) -> Fit:
    """The counts that keep the budgets at the least expected loss, as the map tells; `weights` are the tasks'.

    Greedy: the cut that costs least for what it saves of the budgets comes first. Between measured counts both grow
    evenly, so that the best cut ends at a measured one, but for the last, which goes no further than it must. Savings
    only shrink as other groups do, so a cut that was looked at before is looked at again only when it comes first.
    """
    by_name = {group.name: group for group in groups}

    def cost(name: str, count: int) -> float:
        return sum(weights[task] * rise for task, rise in known.rise(by_name[name], count).items())

    def best_cut(name: str) -> tuple[float, int] | None:
        before, found = _over(shares(kept)), list[tuple[float, int]]()
        for count in (count for count in known.curves[name].rises if count < kept[name]):
            saved = before - _over(shares({**kept, name: count}))
            if saved > 0:
                found.append(((cost(name, count) - cost(name, kept[name])) / saved, count))
        return min(found, default=None)

    kept = {group.name: group.size for group in groups}
    tie = itertools.count()
    heap = [(found[0], next(tie), name) for name in kept if (found := best_cut(name))]
    heapq.heapify(heap)
    while heap and _over(shares(kept)) > 0:
        _, _, name = heapq.heappop(heap)
        found = best_cut(name)
        if found is not None and (not heap or found[0] <= heap[0][0]):
            possible = [count for count in counts(by_name[name], multiple) if found[1] <= count < kept[name]]
            kept[name] = possible[_first_that_holds(shares, kept, name, possible)]
            found = best_cut(name)
        if found is not None:
            heapq.heappush(heap, (found[0], next(tie), name))
    kept = _refill_budget(groups, kept, multiple, shares, cost)
    limiting = {group.name: _limiting(group, kept, known, weights, multiple) for group in groups}
    return Fit(kept, {name: task for name, task in limiting.items() if task is not None})


def _first_that_holds(shares: Shares, kept: Kept, name: str, possible: Sequence[int]) -> int:
    """Place of the largest count of a group at which the budgets hold; of the smallest one where they hold at none."""
    return min(
        bisect.bisect_left(possible, True, key=lambda count: _over(shares({**kept, name: count})) == 0),
        len(possible) - 1,
    )


def _limiting(
    group: Group, kept: Mapping[str, int], known: PruneMap, weights: Mapping[str, float], multiple: int
) -> str | None:
    """The task that the next cut would cost most."""
    fewer = [count for count in counts(group, multiple) if count < kept[group.name]]
    rises = known.rise(group, fewer[0]) if fewer else {}
    return max(rises, key=lambda task: weights[task] * rises[task]) if any(rises.values()) else None


def by_trial(
    groups: Sequence[Group],
    criterion: Callable[[Mapping[str, int], Group, Mapping[str, float]], TrialOutcome],
    base: Mapping[str, float],
    allowance: Mapping[str, float],
    multiple: int,
    shares: Shares,
    report: Report = silent,
) -> Fit:
    """The counts that a performance-aware oracle lets each group keep (PAGCP, Ye et al. 2023), under budgets.

    One group after the other, what saves most of the budgets first, is cut as far as every task it reaches allows, on
    the net that earlier groups left; bisection finds how far. What a group may cost a task is in proportion to what it
    can save: after groups with a share s of all that those which reach the task could save, its loss may have risen by
    tolerance x allowance x s, so that what one group leaves unused the next may use. That schedule is ours, and makes
    the tolerance the bound on the whole loss; an outer bisection finds the one that meets the budgets. A pass ends as
    soon as they hold, or cannot any more.
    """
    whole = {group.name: group.size for group in groups}
    over = _over(shares(whole))
    saves = {
        name: over - _over(shares({**whole, name: count})) for name, count in min_channels(groups, multiple).items()
    }
    ordered = sorted(groups, key=lambda group: -saves[group.name])
    if over == 0:
        return Fit(whole, {}, 0.0)
    low, high, best, tolerance, number = 0.0, math.inf, Fit(min_channels(groups, multiple), {}), FIRST_TOLERANCE, 0
    while math.isinf(high) or (number < PASSES and (low == 0 or high / low > CLOSE)):
        number += 1
        title = f"pass {number}, tolerance {tolerance:.3g}"
        found = _one_pass(ordered, saves, criterion, base, allowance, tolerance, multiple, shares, title, report)
        if max(shares(found.kept)) <= 1:
            high, best = tolerance, found
        else:
            low = tolerance
        tolerance = GROWTH * low if math.isinf(high) else math.sqrt(low * high) if low else high / GROWTH
    return Fit(_refill_budget(groups, best.kept, multiple, shares), best.blocked, best.tolerance)


def _one_pass(
    groups: Sequence[Group],
    saves: Mapping[str, float],
    criterion: Callable[[Mapping[str, int], Group, Mapping[str, float]], TrialOutcome],
    base: Mapping[str, float],
    allowance: Mapping[str, float],
    tolerance: float,
    multiple: int,
    shares: Shares,
    title: str,
    report: Report,
) -> Fit:
    kept, least = {group.name: group.size for group in groups}, min_channels(groups, multiple)
    reaching = {task: sum(saves[group.name] for group in groups if task in group.tasks) for task in base}
    judged, blocked = dict.fromkeys(base, 0.0), dict[str, str]()
    for number, group in enumerate(groups):
        if _over(shares(kept)) == 0 or _over(shares({**kept, **least})) > 0:
            break
        report(Progress("trial", number, len(groups), f"{title}, {group.name}"))
        for task in group.tasks:
            judged[task] += saves[group.name] / max(reaching[task], 1e-9)
        limits = {t: base[t] * (1 + tolerance * allowance[t] * judged[t]) for t in group.tasks}
        every = counts(group, multiple)
        possible = every[::-1][:: math.ceil(len(every) / TRIED) or 1][::-1]
        passed, failed = 0, len(possible) + 1
        while failed - passed > 1:
            middle = (passed + failed) // 2
            outcome = criterion({**kept, group.name: possible[middle - 1]}, group, limits)
            if outcome.blocked is None:
                passed = middle
            else:
                failed, blocked[group.name] = middle, outcome.blocked
        if passed:
            within = [count for count in every if count >= possible[passed - 1]]
            kept[group.name] = within[_first_that_holds(shares, kept, group.name, within)]
        del least[group.name]
    report(Progress("trial", len(groups), len(groups), title))
    return Fit(kept, blocked, tolerance)


def _refill_budget(
    groups: Sequence[Group],
    kept: Mapping[str, int],
    multiple: int,
    shares: Shares,
    cost: Callable[[str, int], float] = lambda name, count: -float(count),
) -> Kept:
    """The counts made larger, step by step, where the budgets have room; what relieves most for its use comes first."""
    found, room = dict(kept), True
    while room:
        before, wider = max(shares(found)), list[tuple[float, str, int]]()
        for group in groups:
            more = [group.size, *counts(group, multiple)]
            position = more.index(found[group.name])
            if position:
                count = more[position - 1]
                used = max(shares({**found, group.name: count}))
                if used <= 1:
                    relief = cost(group.name, found[group.name]) - cost(group.name, count)
                    wider.append((relief / max(used - before, 1e-9), group.name, count))
        room = bool(wider)
        if room:
            _, name, count = max(wider)
            found[name] = count
    return found


def _over(shares: Sequence[float]) -> float:
    """By how much budgets are exceeded, in parts of their limits, summed."""
    return sum(max(0.0, share - 1) for share in shares)
