"""Quantities derived from measured modes: the trunk, each task's own part, and whether sharing pays.

With T(S) the latency of the set of tasks S, and the model T(S) = trunk + sum of own(t) over S, all sets of one task
and the full set of n tasks give trunk = (sum of T({t}) - T(all)) / (n - 1) and own(t) = T({t}) - trunk. The
marginal cost T(all) - T(all but t) needs no model: it is what dropping one task saves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgemtl.errors import UserError
from edgemtl.profiling.inputs import InputChoice
from edgemtl.profiling.names import short_name
from edgemtl.profiling.schema import (
    MOST,
    MOST_BLOCKS,
    MOST_TYPES,
    Count,
    Counts,
    Figure,
    Operators,
    OperatorShare,
    TaskProfile,
)
from edgemtl.runtime import OperatorTime

__all__ = ["Latencies", "count_file", "mode_sets", "operator_shares", "separate_ms", "task_profiles", "trunk_ms"]

if TYPE_CHECKING:
    from edgemtl.profiling.count import Count as GraphCount

Latencies = Mapping[frozenset[str], float]
"""Median latency in ms of each measured set of tasks."""


def mode_sets(tasks: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The modes that a profile measures, by name: all tasks, each alone, all but each; equal sets only once."""
    named = [("all tasks", tuple(tasks))]
    named += [(f"only {task}", (task,)) for task in tasks]
    named += [(f"without {task}", tuple(other for other in tasks if other != task)) for task in tasks]
    seen: set[frozenset[str]] = {frozenset()}
    modes = {}
    for name, chosen in named:
        if frozenset(chosen) not in seen:
            seen.add(frozenset(chosen))
            modes[name] = chosen
    return modes


def trunk_ms(tasks: Sequence[str], latencies: Latencies) -> Figure | None:
    """Time of the part that all tasks share; None for a single task, whose trunk cannot be told apart."""
    if len(tasks) < 2:
        return None
    alone = math.fsum(latencies[frozenset((task,))] for task in tasks)
    value = (alone - latencies[frozenset(tasks)]) / (len(tasks) - 1)
    return Figure(value=value, kind="derived", how="(sum of each task alone - all tasks) / (tasks - 1), of medians")


def separate_ms(tasks: Sequence[str], latencies: Latencies) -> Figure | None:
    """Time of the tasks run one after another, each with its own trunk; None for a single task."""
    if len(tasks) < 2:
        return None
    value = math.fsum(latencies[frozenset((task,))] for task in tasks)
    return Figure(value=value, kind="derived", how="sum of each task alone, of medians")


def task_profiles(tasks: Sequence[str], latencies: Latencies) -> dict[str, TaskProfile]:
    """Time of each task run alone, of its own part, and saved by leaving it out."""
    trunk = trunk_ms(tasks, latencies)
    return {task: _task_profile(task, frozenset(tasks), latencies, trunk) for task in tasks}


def _task_profile(task: str, everything: frozenset[str], latencies: Latencies, trunk: Figure | None) -> TaskProfile:
    alone = latencies[frozenset((task,))]
    own = marginal = None
    if trunk is not None:
        own = Figure(value=alone - trunk.value, kind="derived", how="this task alone - trunk")
        saved = latencies[everything] - latencies[everything - {task}]
        marginal = Figure(value=saved, kind="derived", how="all tasks - all but this one, of medians")
    return TaskProfile(
        alone_ms=Figure(value=alone, kind="measured", how="median of this task alone"), own_ms=own, marginal_ms=marginal
    )


def count_file(
    graph: Path | None, tasks: Sequence[str], heads: Mapping[str, str] | None, choice: InputChoice
) -> tuple[Counts | None, tuple[str, ...]]:
    """Counts of `tasks` in an ONNX file, and notes on them; without counts the notes say why.

    `heads` are the tasks' output tensors, where the file's metadata do not tell.
    """
    if graph is None:
        return None, ("nothing is counted: this engine is no ONNX file; the bundle's manifest has the design's cost",)
    from edgemtl.profiling.count import count_graph  # it imports onnx

    try:
        cost = count_graph(graph, heads=heads, only=tasks, choice=choice, activations=True)
    except UserError as error:
        return None, (f"nothing is counted: {error}",)
    if max(cost.total.params, cost.total.weight_bytes) > MOST:
        return None, (f"nothing is counted: the graph claims more than {MOST} parameters or bytes of them",)
    peaks = cost.activations
    large = [f"FLOPs are left out above {MOST}"] if cost.total.flops > MOST else []
    counts = Counts(
        total=_count(cost.total, peaks.total if peaks else None),
        trunk=_count(cost.trunk, peaks.trunk if peaks else None),
        tasks={task: _count(cost.tasks[task], peaks.tasks[task] if peaks else None) for task in tasks},
        activations_saved={task: peaks.saved[task] for task in tasks} if peaks and len(tasks) > 1 else {},
    )
    return counts, (*large, *cost.notes)


def _count(part: GraphCount, activation_bytes: int | None) -> Count:
    flops = part.flops if part.exact and part.flops <= MOST else None
    macs = None if flops is None else flops // 2
    return Count(
        flops=flops,
        macs=macs,
        params=part.params,
        weight_bytes=part.weight_bytes,
        activation_bytes=activation_bytes,
    )


def operator_shares(times: Sequence[OperatorTime], owners: Mapping[str, str], runs: int) -> Operators | None:
    """Operator times by block and by type, largest first; None where the runtime reports none.

    `owners` are the tasks of the blocks that belong to one.
    """
    total = math.fsum(each.mean_ms for each in times)
    if total <= 0:
        return None
    blocks = _shares([(_block_name(each), each.mean_ms) for each in times], total, MOST_BLOCKS)
    tasks = {_block_name(each): _owner(each, owners) for each in times}
    units: dict[str, set[str]] = {}
    for each in times:
        units.setdefault(_block_name(each), set()).add(short_name(each.unit))
    owned = tuple(
        row.model_copy(
            update={"owner": tasks.get(row.name, ""), "unit": ", ".join(sorted(units.get(row.name, set()) - {""}))}
        )
        for row in blocks
    )
    types = _shares([(short_name(each.op), each.mean_ms) for each in times], total, MOST_TYPES)
    ran = [(short_name(each.unit) or "(not told)", each.mean_ms) for each in times]
    by_unit = _shares(ran, total, MOST_TYPES) if any(each.unit for each in times) else ()
    return Operators(runs=runs, total_ms=total, by_block=owned, by_type=types, by_unit=by_unit)


def _block_name(each: OperatorTime) -> str:
    """The row that an operator counts for: its block, the blocks that it was fused of, or neither."""
    if each.fused:
        listed = " + ".join(each.fused)
        ends = f"{each.fused[0]} to {each.fused[-1]}"
        return short_name(f"fused: {listed if len(each.fused) < 4 else f'{ends}, {len(each.fused)} blocks'}")
    return short_name(each.block) or "(outside of blocks)"


def _owner(each: OperatorTime, owners: Mapping[str, str]) -> str:
    """The task that all of an operator's blocks belong to; empty where they belong to several, or to all tasks."""
    tasks = {owners.get(block, "") for block in each.fused or (each.block,)}
    return tasks.pop() if len(tasks) == 1 else ""


def _shares(rows: Sequence[tuple[str, float]], total: float, most: int) -> tuple[OperatorShare, ...]:
    """Shares by name, the largest first; where there are more than `most`, the last row is all others together."""
    spent: dict[str, list[float]] = {}
    for name, ms in rows:
        spent.setdefault(name, []).append(ms)
    sums = sorted(
        ((math.fsum(each), name, len(each)) for name, each in spent.items()), key=lambda row: (-row[0], row[1])
    )
    if len(sums) > most:
        others = sums[most - 1 :]
        together = math.fsum(ms for ms, _, _ in others), f"({len(others)} others)", sum(n for _, _, n in others)
        sums = [*sums[: most - 1], together]
    return tuple(OperatorShare(name=name, operators=n, ms=ms, share=min(1.0, ms / total)) for ms, name, n in sums)
