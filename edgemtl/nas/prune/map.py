"""The vector sensitivity map of a net: what each group of channels costs each task, measured once.

FastNAS prunes by a map of one score; this one has a number for every group, every count of channels and every task, so
that any budget, floor or preference can be answered from it in seconds. Groups are measured one at a time, the others
whole; that losses of several groups add up is an assumption, which the sequential mode does without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgemtl.errors import UserError
from edgemtl.files.disk import read_json, write_json
from edgemtl.files.seals import check_seal, sealed
from edgemtl.nas.prune.cut import Group
from edgemtl.nas.prune.prunable import Prunable
from edgemtl.progress import Progress, Report, silent

__all__ = ["Curve", "PruneMap", "counts", "map_content", "map_in", "measure_map", "open_map", "steps"]

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
    """Relative rise of each task's loss by the channels that a group of `size` keeps: {channels: {task: rise}}."""

    size: int
    rises: Mapping[int, Mapping[str, float]]

    def rise(self, channels: int, task: str) -> float:
        """The rise at any count: measured ones joined by lines, and never less with fewer channels."""
        counts = sorted(self.rises)
        measured = [max(0.0, self.rises[count].get(task, 0.0)) for count in counts]
        falling = np.maximum.accumulate(np.array([0.0, *reversed(measured)]))[::-1]
        return float(np.interp(channels, [*counts, self.size], falling))


@dataclass(frozen=True)
class PruneMap:
    """Importance of channels (`orders`: by group and part, the most important first), and the curve of each group.

    `base` are the losses of the whole net.
    """

    base: Mapping[str, float]
    orders: Mapping[str, list[list[int]]]
    curves: Mapping[str, Curve] = field(default_factory=dict)

    def rise(self, group: Group, channels: int) -> dict[str, float]:
        """Expected relative rise of the losses of the tasks that a group reaches."""
        curve = self.curves.get(group.name)
        return {task: 0.0 if curve is None else curve.rise(channels, task) for task in group.tasks}


def open_map(prunable: Prunable) -> PruneMap:
    """The map of a net as far as it was measured before, with losses and the orders of channels at least.

    Raises `UserError` for a damaged file.
    """
    stored = _read(prunable)
    if stored is not None:
        return stored
    names = [task.name for task in prunable.net.tasks]
    base = prunable.criterion.losses(prunable.net.copy(), names).losses
    prune_map = PruneMap(base, prunable.orders())
    _write(prunable, prune_map)
    return prune_map


def measure_map(prunable: Prunable, report: Report = silent) -> PruneMap:
    """The map with every group's curve, written after each: an interrupted measurement goes on there."""
    prune_map, groups = open_map(prunable), prunable.groups
    for number, group in enumerate(groups):
        if group.name not in prune_map.curves:
            report(Progress("map", number, len(groups), group.name))
            curve = _curve(prunable, group, prune_map)
            prune_map = replace(prune_map, curves={**prune_map.curves, group.name: curve})
            _write(prunable, prune_map)
    report(Progress("map", len(groups), len(groups)))
    return prune_map


def _curve(prunable: Prunable, group: Group, prune_map: PruneMap) -> Curve:
    possible = counts(group, prunable.multiple)
    last = len(possible) - 1
    positions = {round(number * last / max(1, SAMPLES - 1)) for number in range(SAMPLES)} if possible else ()
    rises = {}
    for count in (possible[position] for position in sorted(positions)):
        losses = prunable.criterion.losses(prunable.narrow(prune_map.orders, {group.name: count}), group.tasks).losses
        rises[count] = {task: loss / max(prune_map.base[task], 1e-9) - 1 for task, loss in losses.items()}
    return Curve(group.size, rises)


def map_content(prunable: Prunable, prune_map: PruneMap) -> dict[str, Any]:
    """A map as JSON, with what it was made for and the hash of all."""
    curves = {
        name: {"size": curve.size, "rises": {str(count): dict(rises) for count, rises in curve.rises.items()}}
        for name, curve in prune_map.curves.items()
    }
    content = {"base": dict(prune_map.base), "orders": dict(prune_map.orders), "curves": curves}
    return sealed({"schema": SCHEMA, **prunable.cache_key, **content})


def map_in(prunable: Prunable, content: object, file: Path, remedy: str) -> PruneMap | None:
    """The map that `map_content` made such JSON of; None where it was made for something else.

    Raises `UserError`, with the `remedy`, where it was damaged in its `file`.
    """
    wanted = {"schema": SCHEMA, **prunable.cache_key}
    if not isinstance(content, dict) or any(content.get(key) != value for key, value in wanted.items()):
        return None
    try:
        for group in prunable.groups:
            channels = [sorted(order) for order in content["orders"][group.name]]
            if channels != [list(range(group.size))] * len(group.parts):
                raise ValueError(f"channels of {group.name}")
        curves = {
            str(name): Curve(int(each["size"]), {int(count): _numbers(rises) for count, rises in each["rises"].items()})
            for name, each in content["curves"].items()
        }
        base = _numbers(content["base"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"pruning map {file} is damaged ({error}): {remedy}") from error
    check_seal(content, file, "pruning map")
    return PruneMap(base, content["orders"], curves)


def _write(prunable: Prunable, prune_map: PruneMap) -> None:
    write_json(prunable.map_file, map_content(prunable, prune_map))


def _read(prunable: Prunable) -> PruneMap | None:
    """Content of the file; None if it does not exist or was made for something else."""
    path = prunable.map_file
    if not path.is_file():
        return None
    return map_in(prunable, read_json(path, "pruning map"), path, "delete it, it is made again")


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    numbers = {str(name): float(value) for name, value in values.items()}
    if not all(map(math.isfinite, numbers.values())):
        raise ValueError("a number that is not finite")
    return numbers
