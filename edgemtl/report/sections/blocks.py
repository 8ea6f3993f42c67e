"""The loss of each task in each block of a net of one's own alone in INT8, as its search measured it."""

from __future__ import annotations

from collections.abc import Sequence

from edgemtl.report.drawing.html import Child, Markup, element, table
from edgemtl.report.drawing.parts import card
from edgemtl.report.load import ReportData
from edgemtl.units import format_quantity

__all__ = ["block_losses_section"]

_SHOWN = 12
_LEAD = (
    "What each task's agreement with the float net loses where this block alone computes in INT8, on the images that "
    "tell the order in which blocks become INT8. Those that lose most stand first."
)


def block_losses_section(data: ReportData) -> Markup | None:
    """Loss by block and task; None where a result knows of none. Beyond a dozen the blocks are folded away."""
    losses = data.result.block_losses if data.result is not None else {}
    if not losses:
        return None
    tasks = list(dict.fromkeys(task for by_task in losses.values() for task in by_task))
    ordered = sorted(losses.items(), key=lambda item: -max(item[1].values(), default=0.0))
    rows: list[list[Child]] = [[block, *(_lost(by_task.get(task)) for task in tasks)] for block, by_task in ordered]
    rest = rows[_SHOWN:]
    summary = element("summary", f"{len(rest)} blocks that lose less")
    folded = element("details", summary, _table(tasks, rest)) if rest else None
    return card("Blocks in INT8, one by one", _LEAD, _table(tasks, rows[:_SHOWN]), folded)


def _table(tasks: Sequence[str], rows: Sequence[Sequence[Child]]) -> Markup:
    return table(["block", *tasks], rows)


def _lost(share: float | None) -> str:
    return "" if share is None else format_quantity("drop", share)
