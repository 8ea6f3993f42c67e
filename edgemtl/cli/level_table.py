"""The table of a bundle's levels on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgemtl.cli.screen import Screen
from edgemtl.units import format_bytes, format_flops

if TYPE_CHECKING:
    from edgemtl.bundle import Manifest, Parity
    from edgemtl.profiling import LevelCost

__all__ = ["show_levels"]


def show_levels(screen: Screen, manifest: Manifest, folder: Path) -> None:
    """Table of levels: cost, scores, time to switch to each, and memory that each adds."""
    from edgemtl.profiling import measure_levels

    if not manifest.levels:
        return
    runs_here = all(target.checked == "engine" for target in manifest.targets.values())
    costs = measure_levels(folder) if runs_here else []
    rows: list[tuple[object, ...]] = []
    for number, level in enumerate(manifest.levels):
        scores = (_score(each) for each in level.parity.values())
        rows.append((level.name, level.budget, format_flops(level.cost.flops), *scores, *_switch(costs, number)))
    own = any(each.split is None for each in manifest.levels[0].parity.values())
    tasks = (task if own else f"{task} {each.metric}" for task, each in manifest.levels[0].parity.items())
    columns = ("level", "within", "FLOPs (MACs)", *tasks, *(_SWITCH if runs_here else ()))
    scored = "their engines" if runs_here else "simulation of their engines, which a board opens,"
    title = f"Levels, scored by {scored} on the images of the check"
    screen.table(f"Levels: agreement of {scored} with the whole net" if own else title, columns, rows)
    if not runs_here:
        return
    grown = [cost.resident_bytes for cost in costs if cost.resident_bytes is not None]
    if len(grown) == len(costs):
        whole, added = format_bytes(sum(grown)), format_bytes(sum(grown[1:]))
        screen.say(
            f"all {len(costs)} levels open take {whole} of memory, {added} more than the first alone, which is opened "
            "with the bundle and counts the runtime's libraries"
        )


def _score(parity: Parity) -> float | str:
    """A level's score in a task: of labels, or, where there are none, how far it agrees with the whole net."""
    return parity.engine if parity.split is not None else f"{parity.agreement or 0.0:.2%}"


_SWITCH = ("first switch in ms", "after", "memory grows by")


def _switch(costs: Sequence[LevelCost], number: int) -> tuple[object, ...]:
    """The columns of what a switch to a level costs; none where levels were not opened."""
    if not costs:
        return ()
    cost = costs[number]
    memory = None if cost.resident_bytes is None else format_bytes(cost.resident_bytes)
    return cost.first_ms, cost.again_ms, memory
