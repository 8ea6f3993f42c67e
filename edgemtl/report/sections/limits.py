"""The budgets and floors of a search, one by one: what is allowed, what the chosen design takes, what it breaks."""

from __future__ import annotations

from edgemtl.report.drawing.html import Child, Markup, element, table
from edgemtl.report.drawing.parts import card
from edgemtl.report.load import ReportData
from edgemtl.report.metrics import changes, format_change
from edgemtl.results import LimitCheck
from edgemtl.units import format_quantity

__all__ = ["limits_section"]


def limits_section(data: ReportData) -> Markup | None:
    """Every limit of the chosen design; None where the result records none."""
    result = data.result
    if result is None or result.best is None or not result.best.limits:
        return None
    base = result.baseline
    tested = {each.task: each.relative for each in changes(result.best, base, data.kinds)} if base else {}
    floors = any(check.kind == "floor" for check in result.best.limits)
    rows = [_row(check, tested, floors) for check in result.best.limits]
    head: list[Child] = ["limit", "kept", "allowed", "chosen design"]
    lead = "What the chosen design takes of each budget, as it was measured when it was chosen."
    if floors:
        head.append("on test images")
        lead = (
            "What the chosen design takes of each budget, and what each task with a floor loses against the baseline. "
            "Floors are decided on validation images; what the same design loses on test images stands beside."
        )
    marks = ["" if check.kept else "worst" for check in result.best.limits]
    return card("Budgets and floors", lead, table(head, rows, numbers=range(2, 5), marked=marks))


def _row(check: LimitCheck, tested: dict[str, float], floors: bool) -> list[Child]:
    floor = check.kind == "floor"
    amounts = (format_quantity(check.quantity, amount) for amount in (check.allowed, check.value))
    allowed, value = (f"{amount} lost" for amount in amounts) if floor else amounts
    broken = f"broken by {format_quantity('drop', check.excess)}{' of the baseline' if floor else ''}"
    verdict = element("b", "yes" if check.kept else broken, class_="good-text" if check.kept else "bad-text")
    cells: list[Child] = [check.name, verdict, allowed, value]
    if floors:
        change = tested.get(check.task or "") if floor else None
        cells.append("" if change is None else format_change(change))
    return cells
