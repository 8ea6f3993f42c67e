"""Sections about the network itself: its blocks as a picture, and where its cost goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from edgemtl.blocks import BlockCost, Owner, cost_by_owner
from edgemtl.profiling import Profile
from edgemtl.report.drawing.html import NONE, Child, Markup, element, table
from edgemtl.report.drawing.net import draw_net
from edgemtl.report.drawing.parts import card, count_text, ms_text, short_flops, stack_row, swatch, task_class
from edgemtl.report.load import ReportData
from edgemtl.results import PathCost

__all__ = ["cost_section", "design_section"]

_LEAD = (
    "From the image down to each task's own part. A bar is a block, in the colour of its precision and as wide as the "
    "channels that it gives; where tasks run a row side by side, a task's bar is as wide as the weights that it reads. "
    "Hover over a bar for its figures."
)
_LATTICE_LEAD = (
    "Where blocks lie on a lattice each task has a map: a row is a resolution, lines bring one row's features to "
    "another, and dots at the right are what the task's decoder reads. What stays pale is skipped. A figure in a block "
    "says how many tasks compute it at once, because they run the same blocks before it."
)
_NO_BLOCKS = "What was chosen: the net is no design of a space, so its blocks are unknown."


def design_section(data: ReportData) -> Markup | None:
    """The chosen design: a picture of its blocks, and every choice."""
    if not data.design and not data.blocks:
        return None
    rows: list[list[Child]] = [[name, str(option)] for name, option in data.design.items()]
    summary = element("summary", f"All {len(rows)} choices")
    choices = element("details", summary, table(["choice", "option"], rows, numbers=NONE)) if rows else None
    if not data.blocks:
        return card("The design", _NO_BLOCKS, choices)
    lead = f"{_LEAD} {_LATTICE_LEAD}" if any(block.column is not None for block in data.blocks) else _LEAD
    return card("The design", lead, draw_net(data.blocks, data.tasks, data.engine_precision), choices)


def cost_section(data: ReportData) -> Markup | None:
    """FLOPs, parameters and milliseconds, split into trunk and each task."""
    rows = [row for row in (*_counted_rows(data), *(_latency_row(data, each) for each in data.profiles)) if row]
    if not rows:
        return None
    legend = [
        swatch("c-trunk", "trunk, shared by all tasks"),
        *(swatch(task_class(t, data.tasks), t) for t in data.tasks),
        swatch("c-some", "shared by some of the tasks") if any("c-some" in str(row) for row in rows) else None,
    ]
    lead = "What all tasks share is paid once; dropping a task saves its own part only."
    return card("Where the cost goes", lead, rows, element("ul", legend, class_="legend"))


def split(total: float, paths: Mapping[str, float]) -> dict[Owner, float] | None:
    """The trunk's and each task's own part from a total and what each task runs alone; None where it does not add up.

    Where every block belongs to all tasks or to one, trunk = (sum of paths - total) / (n - 1).
    """
    if len(paths) < 2:
        return None
    trunk = (math.fsum(paths.values()) - total) / (len(paths) - 1)
    parts: dict[Owner, float] = {(): trunk} | {(task,): path - trunk for task, path in paths.items()}
    return parts if min(parts.values()) >= 0 else None


def _counted_rows(data: ReportData) -> list[Child]:
    if data.blocks:
        costs = cost_by_owner(data.blocks)
        total = sum(costs.values(), BlockCost())
        flops = {owner: float(cost.flops) for owner, cost in costs.items()}
        params = {owner: float(cost.params) for owner, cost in costs.items()}
        return [
            _stack(data, "compute", total.flops, flops, short_flops),
            _stack(data, "parameters", total.params, params, count_text),
        ]
    cost = (data.result.best if data.result is not None else None) or (data.manifest and data.manifest.cost)
    if cost:
        return [
            _stack(data, "compute", cost.flops, split(cost.flops, _paths(cost.paths, "flops")), short_flops),
            _stack(data, "parameters", cost.params, split(cost.params, _paths(cost.paths, "params")), count_text),
        ]
    if data.profiles and (counts := data.profiles[0].counts) is not None:
        flops = {(): float(counts.trunk.flops or 0)}
        flops |= {(task,): float(count.flops or 0) for task, count in counts.tasks.items()}
        params = {(): float(counts.trunk.params)}
        params |= {(task,): float(count.params) for task, count in counts.tasks.items()}
        return [
            _stack(data, "compute", counts.total.flops, flops, short_flops) if counts.total.flops is not None else None,
            _stack(data, "parameters", counts.total.params, params, count_text),
        ]
    return []


def _paths(paths: Mapping[str, PathCost], quantity: str) -> dict[str, float]:
    return {task: float(getattr(path, quantity)) for task, path in paths.items()}


def _stack(
    data: ReportData, name: str, total: float, sizes: Mapping[Owner, float] | None, words: Callable[[float], str]
) -> Child:
    """A bar split by owners, the trunk first, then each task, then what some of them share."""
    if not sizes or len(data.tasks) < 2:
        return None
    ordered = sorted((owner for owner, size in sizes.items() if size), key=lambda owner: (len(owner) > 1, owner != ()))
    segments = {
        " + ".join(owner) or "trunk": (sizes[owner], words(sizes[owner]), _owner_class(owner, data))
        for owner in ordered
    }
    return stack_row(name, f"{words(total)}, counted", segments)


def _owner_class(owner: Owner, data: ReportData) -> str:
    return task_class(owner[0], data.tasks) if len(owner) == 1 else "c-some" if owner else "c-trunk"


def _latency_row(data: ReportData, profile: Profile) -> Child:
    own = {task: costs.own_ms.value for task, costs in profile.task_costs.items() if costs.own_ms is not None}
    if profile.trunk_ms is None or not own:
        return None

    def words(value: float) -> str:
        return f"{ms_text(value)} ms"

    segments = {"trunk": (max(0.0, profile.trunk_ms.value), words(profile.trunk_ms.value), "c-trunk")}
    segments |= {task: (max(0.0, ms), words(ms), task_class(task, data.tasks)) for task, ms in own.items()}
    return stack_row(f"ms, {profile.runtime}", f"{words(profile.latency.typical_ms)}, derived", segments)
