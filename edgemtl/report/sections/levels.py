"""The levels of a bundle: what each costs, and what each is worth to every task."""

from __future__ import annotations

from edgemtl.bundle import BundleLevel, Parity
from edgemtl.report.drawing.html import Child, Markup, table
from edgemtl.report.drawing.parts import card
from edgemtl.report.load import ReportData
from edgemtl.report.metrics import format_metric
from edgemtl.units import format_bytes, format_flops

__all__ = ["levels_section"]


def levels_section(data: ReportData) -> Markup | None:
    """The levels that a bundle can be switched to, in its order; nothing of a bundle of one level."""
    if data.manifest is None or not data.manifest.levels:
        return None
    levels, tasks = data.manifest.levels, [task.name for task in data.manifest.tasks]
    unlabelled = any(each.split is None for level in levels for each in level.parity.values())
    score = (
        "how far each task's outputs agree with the whole net's, on photos without labels: nothing was trained for a "
        "level"
        if unlabelled
        else "each task's own metric of the engine"
    )
    lead = f"Switched at run time, over one copy of the weights. For each level what it costs, and {score}."
    head: list[Child] = ["level", "within", "FLOPs (MACs)", "weights", *tasks]
    rows = [_row(level, tasks) for level in levels]
    return card("Levels", lead, table(head, rows, numbers=range(2, 4 + len(tasks))))


def _row(level: BundleLevel, tasks: list[str]) -> list[Child]:
    cost = level.cost
    scores: list[Child] = [_score(level.parity.get(task)) for task in tasks]
    return [level.name, level.budget, format_flops(cost.flops), format_bytes(cost.weight_bytes), *scores]


def _score(parity: Parity | None) -> Child:
    if parity is None:
        return ""
    if parity.split is None and parity.agreement is not None:
        return f"{parity.agreement:.2%}"
    return f"{parity.metric} {format_metric(parity.metric, parity.engine)}"
