"""Levels of a net of one's own: what is left of it within parts of its FLOPs, or by prunings, over one copy of weights.

A level keeps the channels that matter most to the outputs, in the one order that was measured on the whole net, so that
its weights are those of the whole net at some positions: nothing is trained for a level, and nothing stored twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemtl.errors import UserError
from edgemtl.files.disk import read_json
from edgemtl.models import recalibrate
from edgemtl.nas.prune.apply import PRUNING_FILE, PRUNING_SCHEMA, apply_pruning, kept_sides
from edgemtl.nas.prune.cut import Side, positions_kept, reads_along
from edgemtl.nas.prune.decide import check_feasible, fit_map, resolve_budgets, task_weights
from edgemtl.nas.prune.declared import OpenedDeclared
from edgemtl.nas.prune.map import measure_map
from edgemtl.own import DeclaredNet
from edgemtl.progress import Report, note

__all__ = ["NetLevel", "parse_levels", "plan_net_levels"]

WHOLE = 1.0
_EXAMPLE = "1,0.75,0.5"


@dataclass(frozen=True)
class NetLevel:
    """A narrow form of a net: `budget` says in words what it was made for, `channels` what it keeps of each group.

    Its parameters are those of the whole net at `positions`, by the parameter's name in the net and the axis; axes that
    are not named are whole. Statistics of batch normalisation are its own.
    """

    name: str
    budget: str
    channels: Mapping[str, int]
    net: DeclaredNet
    positions: Mapping[str, Mapping[int, tuple[int, ...]]]


def parse_levels(text: str) -> tuple[float | Path, ...]:
    """The narrower levels that a text asks for, `1,0.75,0.5`: parts of the net's FLOPs, or folders of prunings of it.

    The whole net, 1, is always the first level. Raises `UserError` for anything else, and where there is only that.
    """
    wanted = dict.fromkeys(_level(each.strip()) for each in text.split(","))
    narrower = tuple(each for each in wanted if each != WHOLE)
    if not narrower:
        raise UserError(f"--levels {text}: the whole net is a level by itself: name a narrower one, {_EXAMPLE}")
    return narrower


def _level(text: str) -> float | Path:
    folder = Path(text)
    if text and (folder / PRUNING_FILE).is_file():
        return folder
    try:
        part = float(text)
    except ValueError:
        part = 0.0
    if not 0 < part <= WHOLE:
        raise UserError(
            f"--levels: {text!r} is no part of the net's FLOPs, and no folder that `edgemtl prune` wrote: give numbers "
            f"above 0, the whole net being 1, for example {_EXAMPLE}"
        )
    return part


def plan_net_levels(opened: OpenedDeclared, wanted: Sequence[float | Path], report: Report) -> tuple[NetLevel, ...]:
    """The whole net, and a level for each part of its FLOPs or folder of a pruning.

    The sensitivity map, which says how many channels each group keeps within a part, is measured once and kept. Raises
    `UserError` for a part that pruning cannot reach, and for a folder that holds no pruning of this net, or one
    that was trained further.
    """
    net = opened.prunable.net
    assert isinstance(net, DeclaredNet)
    levels = [NetLevel("100%", "the whole net", {group.name: group.size for group in opened.prunable.groups}, net, {})]
    for each in wanted:
        level = _pruned(opened, each) if isinstance(each, Path) else _within(opened, each, report)
        if any(level.channels == other.channels for other in levels):
            raise UserError(f"level {level.name} keeps the channels of another level: leave it out")
        recalibrate(level.net, opened.prunable.criterion.recalibration)
        note(report, f"level {level.name}: {_flops(opened, level) / 1e6:.3g} MFLOPs")
        levels.append(level)
    return tuple(levels)


def _flops(opened: OpenedDeclared, level: NetLevel) -> int:
    return opened.prunable.cost(level.channels, None).flops


def _within(opened: OpenedDeclared, part: float, report: Report) -> NetLevel:
    """The level that the sensitivity map advises within a part of the FLOPs."""
    prunable, budget = opened.prunable, f"{100 * part:g}%FLOPs"
    limits = resolve_budgets(prunable, [budget], opened.target)
    check_feasible(prunable, limits, lambda prune_map, channels: {}, "net")
    prune_map = measure_map(prunable, report)
    channels = fit_map(prunable, prune_map, limits, task_weights(opened.preference, {})).channels
    chosen = prunable.chosen(prune_map.orders, channels)
    sides = positions_kept(prunable.net, [group for group in prunable.groups if group.name in chosen], chosen)
    narrow = prunable.narrow(prune_map.orders, channels)
    assert isinstance(narrow, DeclaredNet)
    return NetLevel(f"{100 * part:g}%", budget, channels, narrow, _by_parameter(opened, sides))


def _pruned(opened: OpenedDeclared, folder: Path) -> NetLevel:
    """The level that a pruning left of the net."""
    net, path = opened.prunable.net, folder / PRUNING_FILE
    assert isinstance(net, DeclaredNet)
    module = apply_pruning(net.module, folder)
    content: dict[str, Any] = read_json(path, "pruning")
    if content.get("finetuned") or content.get("compensated"):
        raise UserError(
            f"--levels: {folder} was fitted or trained after it was pruned, so that its weights are not the net's: use "
            f"edgemtl prune without --finetune, or give the parts of the FLOPs, {_EXAMPLE}"
        )
    sizes = {group.name: group.size for group in opened.prunable.groups}
    channels = {row["group"]: row["after"] for row in content["groups"]}
    if content.get("schema") != PRUNING_SCHEMA or {row["group"]: row["before"] for row in content["groups"]} != sizes:
        raise UserError(f"--levels: {folder} is a pruning of another net: prune this one, or give parts, {_EXAMPLE}")
    sides = {(f"module.{name}", side): positions for (name, side), positions in kept_sides(folder, net.module).items()}
    narrow = net.with_module(module, net.tasks)
    return NetLevel(folder.name, f"pruned into {folder.name}", channels, narrow, _by_parameter(opened, sides))


def _by_parameter(opened: OpenedDeclared, sides: Mapping[Side, Sequence[int]]) -> dict[str, dict[int, tuple[int, ...]]]:
    """The positions along the axes of parameters, from those on the sides of layers."""
    positions: dict[str, dict[int, tuple[int, ...]]] = {}
    for (name, side), kept in sides.items():
        if side not in ("inputs", "outputs"):
            positions.setdefault(name, {})[int(side)] = tuple(kept)
            continue
        along = reads_along(opened.prunable.net.get_submodule(name))
        positions.setdefault(f"{name}.weight", {})[along if side == "inputs" else 1 - along] = tuple(kept)
    return positions
