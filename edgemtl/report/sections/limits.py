"""The budgets and floors of a search, one by one: what is allowed, what the chosen design takes, what it breaks."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from edgemtl.report.drawing.html import Child, Markup, element, table
from edgemtl.report.drawing.parts import card
from edgemtl.report.load import ReportData
from edgemtl.report.metrics import changes, format_change
from edgemtl.results import Entry, LimitCheck
from edgemtl.units import format_limit, format_quantity

__all__ = ["limits_section"]


def limits_section(data: ReportData) -> Markup | None:
    """Every limit of the chosen design; None where the result records none."""
    result = data.result
    if result is None or result.best is None or not result.best.limits:
        return None
    base = result.baseline
    tested = partial(_on_test, best=result.best, baseline=base, kinds=data.kinds)
    floors = any(check.kind == "floor" for check in result.best.limits)
    rows = [_row(check, tested(check) if floors else None) for check in result.best.limits]
    head: list[Child] = ["limit", "kept", "allowed", "chosen design"]
    lead = "What the chosen design takes of each budget, as it was measured when it was chosen."
    if floors:
        head.append("on test images")
        lead = (
            "What the chosen design takes of each budget, and what each task with a floor loses against the baseline, "
            "or has of the metric where the floor is a value. Floors are decided on validation images; what the same "
            "design loses or has on test images stands beside."
        )
    if result.early_stops is not None and result.early_stops.designs:
        lead += f" {result.early_stops.words(result.evaluations)}."
    marks = ["" if check.kept else "worst" for check in result.best.limits]
    return card("Budgets and floors", lead, table(head, rows, numbers=range(2, 5), marked=marks))


def _row(check: LimitCheck, tested: str | None) -> list[Child]:
    """A limit's cells; `tested` is the last one, None where no limit is a floor."""
    floor = check.kind == "floor"
    limit = check.amount(check.allowed) if floor else format_limit(check.quantity, check.allowed)
    amounts = (limit, check.amount(check.value))
    allowed, value = amounts if check.quantity != "drop" else (f"{amount} lost" for amount in amounts)
    if check.quantity == "score":
        allowed = f"at {'least' if check.at_least else 'most'} {allowed}"
        broken = f"missed by {check.amount(abs(check.value - check.allowed))}"
    else:
        broken = f"broken by {format_quantity('drop', check.excess)}{' of the baseline' if floor else ''}"
    verdict = element("b", "yes" if check.kept else broken, class_="good-text" if check.kept else "bad-text")
    return [check.name, verdict, allowed, value, *([] if tested is None else [tested])]


def _on_test(check: LimitCheck, best: Entry, baseline: Entry | None, kinds: Mapping[str, str]) -> str:
    """A floor's amount on test images: the task's relative change, or the metric's value; empty for a budget."""
    scores = best.metrics.get(check.task or "", {})
    if check.quantity == "score":
        return check.amount(scores[check.metric]) if check.metric in scores else ""
    if check.quantity != "drop" or baseline is None:
        return ""
    change = next((each for each in changes(best, baseline, kinds, check.metric) if each.task == check.task), None)
    return "" if change is None else format_change(change.relative)
