"""The vector sensitivity map of a net: what each group of channels costs each task, measured once.

FastNAS prunes by a map of one score; this one has a number for every group, every count of channels and every task, so
that any budget, floor or preference can be answered from it in seconds. Groups are measured one at a time, the others
whole; that losses of several groups add up is an assumption, which the sequential mode does without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgemtl.errors import UserError
from edgemtl.files.disk import read_json, write_json
from edgemtl.files.seals import check_seal, sealed
from edgemtl.models import TaskNet
from edgemtl.nas.prune.criterion import LossCriterion
from edgemtl.nas.prune.groups import Group, cut
from edgemtl.progress import Progress, Report, silent

__all__ = ["Curve", "PruneMap", "counts", "first_channels", "measure_curves", "open_map", "steps"]

SCHEMA = "edgemtl.prunemap/1"
LEAST_KEPT = 0.125
SAMPLES = 4


def steps(size: int, multiple: int) -> list[int]:
    """Counts of channels that a group of `size` may be cut to, most first: multiples, and an eighth at least."""
    least = multiple * max(1, math.ceil(LEAST_KEPT * size / multiple))
    return list(range(least, size, multiple))[::-1]


def counts(group: Group, multiple: int) -> list[int]:
    """Counts of channels that a group may be cut to, most first: multiples, or whole heads where it has any."""
    return steps(group.size, group.step if group.step > 1 else multiple)


@dataclass(frozen=True)
class Curve:
    """Relative rise of each task's loss by the channels that a group of `size` keeps: {kept: {task: rise}}."""

    size: int
    rises: Mapping[int, Mapping[str, float]]

    def rise(self, kept: int, task: str) -> float:
        """The rise at any count: measured ones joined by lines, and never less with fewer channels."""
        counts = sorted(self.rises)
        measured = [max(0.0, self.rises[count].get(task, 0.0)) for count in counts]
        falling = np.maximum.accumulate(np.array([0.0, *reversed(measured)]))[::-1]
        return float(np.interp(kept, [*counts, self.size], falling))


@dataclass(frozen=True)
class PruneMap:
    """Importance of channels (`orders`: by group and part, the most important first), and the curve of each group.

    `base` are the losses of the whole net.
    """

    base: Mapping[str, float]
    orders: Mapping[str, list[list[int]]]
    curves: Mapping[str, Curve] = field(default_factory=dict)

    def rise(self, group: Group, kept: int) -> dict[str, float]:
        """Expected relative rise of the losses of the tasks that a group reaches."""
        curve = self.curves.get(group.name)
        return {task: 0.0 if curve is None else curve.rise(kept, task) for task in group.tasks}


def first_channels(orders: Mapping[str, list[list[int]]], kept: Mapping[str, int]) -> dict[str, list[list[int]]]:
    """The most important channels of each group of `kept`, part by part, in the net's order."""
    return {name: [sorted(order[:count]) for order in orders[name]] for name, count in kept.items()}


def open_map(
    net: TaskNet,
    groups: Sequence[Group],
    criterion: LossCriterion,
    path: Path,
    cache_key: Mapping[str, Any],
) -> PruneMap:
    """The map in `path` where it was `cache_key` the same, else a new one there with losses and orders but no curve.

    Raises `UserError` for a damaged file.
    """
    found = _read(path, cache_key, groups)
    if found is None:
        base = criterion.losses(cut(net, groups, {}), [task.name for task in net.tasks]).losses
        found = PruneMap(base, criterion.orders(net, groups))
        _write(path, cache_key, found)
    return found


def measure_curves(
    net: TaskNet,
    groups: Sequence[Group],
    criterion: LossCriterion,
    multiple: int,
    known: PruneMap,
    path: Path,
    cache_key: Mapping[str, Any],
    report: Report = silent,
) -> PruneMap:
    """The map with the curves that it lacks, written to `path` after each: an interrupted measurement goes on there."""
    for number, group in enumerate(groups):
        if group.name not in known.curves:
            report(Progress("map", number, len(groups), group.name))
            curve = _curve(net, group, criterion, multiple, known)
            known = PruneMap(known.base, known.orders, {**known.curves, group.name: curve})
            _write(path, cache_key, known)
    report(Progress("map", len(groups), len(groups)))
    return known


def _curve(net: TaskNet, group: Group, criterion: LossCriterion, multiple: int, known: PruneMap) -> Curve:
    possible = counts(group, multiple)
    places = {round(index * (len(possible) - 1) / max(1, SAMPLES - 1)) for index in range(SAMPLES)} if possible else ()
    rises = {}
    for count in (possible[index] for index in sorted(places)):
        narrow = cut(net, [group], first_channels(known.orders, {group.name: count}))
        losses = criterion.losses(narrow, group.tasks).losses
        rises[count] = {task: loss / max(known.base[task], 1e-9) - 1 for task, loss in losses.items()}
    return Curve(group.size, rises)


def _write(path: Path, cache_key: Mapping[str, Any], found: PruneMap) -> None:
    curves = {
        name: {"size": curve.size, "rises": {str(kept): dict(rises) for kept, rises in curve.rises.items()}}
        for name, curve in found.curves.items()
    }
    content = {"base": dict(found.base), "orders": dict(found.orders), "curves": curves}
    write_json(path, sealed({"schema": SCHEMA, **cache_key, **content}))


def _read(path: Path, cache_key: Mapping[str, Any], groups: Sequence[Group]) -> PruneMap | None:
    """What a file holds; None where there is none, or one that was made for something else."""
    if not path.is_file():
        return None
    stored, wanted = read_json(path, "pruning map"), {"schema": SCHEMA, **cache_key}
    if not isinstance(stored, dict) or any(stored.get(key) != value for key, value in wanted.items()):
        return None
    try:
        for group in groups:
            found = [sorted(order) for order in stored["orders"][group.name]]
            if found != [list(range(group.size))] * len(group.parts):
                raise ValueError(f"channels of {group.name}")
        curves = {
            str(name): Curve(int(each["size"]), {int(kept): _numbers(rises) for kept, rises in each["rises"].items()})
            for name, each in stored["curves"].items()
        }
        base = _numbers(stored["base"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"pruning map {path} is damaged ({error}): delete it, it is made again") from error
    check_seal(stored, path, "pruning map")
    return PruneMap(base, stored["orders"], curves)


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    found = {str(name): float(value) for name, value in values.items()}
    if not all(map(math.isfinite, found.values())):
        raise ValueError("a number that is not finite")
    return found
