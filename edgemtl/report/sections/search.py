"""Sections that a search's result fills: the front as a picture and a table, and every task against the baseline."""

from __future__ import annotations

from collections.abc import Sequence

from edgemtl.errors import UserError
from edgemtl.report.drawing.html import NONE, Child, Markup, element, join, table
from edgemtl.report.drawing.parts import card, kind_badge, listed, ms_text
from edgemtl.report.drawing.svg import Point, scatter, short_number, signed_number
from edgemtl.report.load import ReportData
from edgemtl.report.metrics import (
    Change,
    changes,
    deciding_metric,
    format_change,
    format_metric,
    known_metric,
    worst_change,
)
from edgemtl.report.sections.entries import describe, entry_kind, score_name, score_of
from edgemtl.report.sections.objectives import objectives_figure
from edgemtl.results import Entry, Latency, Result
from edgemtl.units import format_bytes, format_flops, parse_budget

__all__ = ["front_entries", "front_section", "tasks_section"]

ROWS_LIMIT = 200
ROWS_OPEN = 12
_ROUNDING = 1e-6
_LEGEND = (
    ("chosen", "chosen", '<polygon points="10,2 12,7 18,8 14,11 15,17 10,14 5,17 6,11 2,8 8,7" class="mark chosen"/>'),
    ("front", "on the front", '<circle cx="10" cy="10" r="4.5" class="mark front"/>'),
    ("baseline", "baseline", '<polygon points="10,3 17,10 10,17 3,10" class="mark baseline"/>'),
    ("infeasible", "breaks a budget or floor", '<circle cx="10" cy="10" r="4.5" class="mark infeasible"/>'),
)


def front_entries(result: Result) -> list[Entry]:
    """The front by FLOPs, with the chosen design among it."""
    entries = list(result.front)
    if result.best is not None and all(entry.design != result.best.design for entry in entries):
        entries.append(result.best)
    return sorted(entries, key=lambda entry: (entry.flops, -(entry.delta_m or 0.0)))


def front_section(data: ReportData) -> Markup | None:
    """Pareto front: a picture per cost, then the table."""
    result = data.result
    if result is None or not (entries := front_entries(result)):
        return None
    pairs = (_flops_chart(entries, result), *_latency_charts(entries, result))
    charts = [chart for chart in (*pairs, objectives_figure(entries, result, data.kinds)) if chart]
    kinds = {entry_kind(entry, result) for entry in entries}
    legend = [
        element("li", element("svg", Markup(shape), viewBox="0 0 20 20", aria_hidden="true"), text)
        for kind, text, shape in _LEGEND
        if kind in kinds
    ]
    weighted = f", weighted by {result.preferred}" if result.preferred else ""
    lead = (
        f"Each mark is one design: up is better for the tasks (mean relative change against the baseline{weighted}), "
        "left is cheaper. Hover over a mark for its figures."
    )
    if result.origin is not None:
        lead += f" The measurements are {result.origin.words}."
    picture = (element("div", charts, class_="charts"), element("ul", legend, class_="legend")) if charts else None
    return card("Pareto front", lead, picture, _front_table(entries, result, data))


def _flops_chart(entries: Sequence[Entry], result: Result) -> Markup | None:
    points = [
        Point(entry.flops, 100 * height, entry_kind(entry, result), describe(entry, result))
        for entry in entries
        if (height := score_of(entry, result)) is not None
    ]
    if not points:
        return None
    chart = scatter(
        points,
        title=f"{score_name(result)} against FLOPs",
        labels=("FLOPs", f"{score_name(result)}, %"),
        formats=(short_number, signed_number),
        limit=_limit(result, "flops"),
    )
    return element("figure", chart, element("figcaption", "Against FLOPs ", kind_badge("counted")))


def _latency_charts(entries: Sequence[Entry], result: Result) -> list[Markup]:
    """A chart for each way and place of obtaining latency: measured and predicted figures never share axes."""
    groups: dict[tuple[str, str, str], list[Point]] = {}
    for entry in entries:
        height = score_of(entry, result)
        if entry.latency_ms is not None and height is not None:
            position = (entry.latency_ms.kind, entry.latency_ms.device, entry.latency_ms.runtime)
            point = Point(entry.latency_ms.value, 100 * height, entry_kind(entry, result), describe(entry, result))
            groups.setdefault(position, []).append(point)
    return [_latency_chart(position, points, result) for position, points in groups.items()]


def _latency_chart(position: tuple[str, str, str], points: Sequence[Point], result: Result) -> Markup:
    kind, device, runtime = position
    chart = scatter(
        points,
        title=f"{score_name(result)} against {kind} latency on {device}/{runtime}",
        labels=("ms", f"{score_name(result)}, %"),
        formats=(short_number, signed_number),
        limit=_limit(result, "latency_ms", device, runtime),
    )
    return element("figure", chart, element("figcaption", f"Against latency on {device}/{runtime} ", kind_badge(kind)))


def _limit(result: Result, quantity: str, device: str = "", runtime: str = "") -> tuple[float, str] | None:
    """The tightest absolute budget on a quantity of all tasks together, measured there where that matters."""
    limits = []
    for text in result.budgets:
        try:
            budget = parse_budget(text)
        except UserError:
            continue
        here = budget.device in (None, device) and budget.runtime in (None, runtime)
        if budget.quantity == quantity and here and not budget.relative and budget.task is None:
            limits.append((budget.value, text))
    return min(limits, default=None)


def _front_table(entries: Sequence[Entry], result: Result, data: ReportData) -> Markup:
    """Chosen design and baseline at a glance, and every design behind a click where there are many."""
    if len(entries) <= ROWS_OPEN:
        return _entries_table(entries, result, data)
    first = [entry for entry in entries if entry_kind(entry, result) in ("chosen", "baseline")]
    shown = f"The {ROWS_LIMIT} cheapest of {len(entries)}" if len(entries) > ROWS_LIMIT else f"All {len(entries)}"
    rest = _entries_table(entries[:ROWS_LIMIT], result, data)
    details = element("details", element("summary", f"{shown} designs"), rest)
    return join([_entries_table(first, result, data) if first else None, details])


def _entries_table(entries: Sequence[Entry], result: Result, data: ReportData) -> Markup:
    metrics = {task: _column(task, entries, data) for task in data.tasks}
    scopes = {_origin(entry.latency_ms) for entry in entries if entry.latency_ms is not None}
    shared = scopes.pop() if len(scopes) == 1 else ""
    latency = ("latency", element("br"), element("small", shared, class_="place")) if shared else "latency"
    weighted: list[Child] = [("weighted", element("br"), "delta_m")] if result.preferred else []
    head: list[Child] = ["design", "FLOPs", "MACs", "weights", latency, "delta_m", *weighted]
    head += [(task, element("br"), element("small", name)) for task, name in metrics.items()]
    rows = [_row(entry, result, metrics, bool(shared)) for entry in entries]
    return table(head, rows, marked=[entry_kind(entry, result) for entry in entries])


def _origin(latency: Latency) -> str:
    return f"{latency.origin}, {latency.device}/{latency.runtime}"


def _column(task: str, entries: Sequence[Entry], data: ReportData) -> str:
    for entry in entries:
        metric = deciding_metric(entry.metrics.get(task, {}), data.kinds.get(task))
        if metric is not None:
            return metric.name
    return next((name for entry in entries for name in entry.metrics.get(task, {})), "")


def _row(entry: Entry, result: Result, metrics: dict[str, str], shared_origin: bool) -> list[Child]:
    kind = entry_kind(entry, result)
    label = {
        "chosen": "★\u00a0chosen",
        "baseline": "◆\u00a0baseline",
        "infeasible": "○\u00a0design" if entry.broken else "○\u00a0breaks a limit",
        "front": "●\u00a0front",
    }[kind]
    means = (entry.delta_m, entry.weighted_delta_m) if result.preferred else (entry.delta_m,)
    scores: list[Child] = []
    for task, name in metrics.items():
        value = entry.metrics.get(task, {}).get(name)
        scores.append("" if value is None else format_metric(name, value))
    broken = listed([check.name for check in entry.broken]) if kind != "baseline" else ""
    flops, _, macs = format_flops(entry.flops).rstrip(")").partition(" (")
    return [
        (
            label,
            element("small", f" {entry.name}") if entry.name not in (None, kind, "best") else None,
            element("div", f"breaks {broken}", class_="sub wrap") if broken else None,
        ),
        flops,
        macs,
        format_bytes(entry.bytes),
        _latency_cell(entry.latency_ms, shared_origin),
        *("" if mean is None else format_change(mean) for mean in means),
        *scores,
    ]


def _latency_cell(latency: Latency | None, shared_origin: bool) -> Child:
    if latency is None:
        return element("span", "not measured", class_="sub")
    text = f"{ms_text(latency.value)} ms"
    return text if shared_origin else (text, element("br"), element("small", _origin(latency), class_="place"))


def tasks_section(data: ReportData) -> Markup | None:
    """Every task of the chosen design: its deciding score against the baseline, then its other scores."""
    result = data.result
    if result is None or result.best is None or not result.best.metrics:
        return None
    best, base = result.best, result.baseline
    task_changes = changes(best, base, data.kinds) if base else []
    worst = worst_change(task_changes)
    if base is None:
        plain: list[list[Child]] = [[task, _other_scores(best, task, "")] for task in best.metrics]
        return card(
            "Tasks",
            "Scores of the chosen design; the result names no baseline to compare with.",
            table(["task", "scores"], plain, numbers=NONE),
        )
    by_task = {change.task: change for change in task_changes}
    scale = max([abs(change.relative) for change in task_changes] + [0.02])
    rows = [_task_row(task, best, by_task.get(task), scale) for task in best.metrics]
    marks = [
        "worst" if worst is not None and task == worst.task and worst.relative < 0 else "" for task in best.metrics
    ]
    lead = (
        "The chosen design against the baseline, in each task's deciding metric; right is better. "
        f"{_means(result, best, task_changes)}"
    )
    if worst is not None:
        lead += f"The worst task is {worst.task} ({format_change(worst.relative)})."
    head = ["task", "change", "", "baseline", "chosen", "metric", "other scores"]
    return card("Tasks", lead, table(head, rows, numbers=range(1, 5), marked=marks))


def _means(result: Result, best: Entry, rows: Sequence[Change]) -> str:
    """How delta_m comes from the tasks' changes: their mean, unless an older result holds a weighted one so named."""
    if best.delta_m is None or len(rows) < len(best.metrics):
        return ""
    mean = sum(change.relative for change in rows) / len(rows)
    if abs(mean - best.delta_m) > _ROUNDING:
        unexplained = f"the result's delta_m, {format_change(best.delta_m)}, has weights that it does not record"
        return f"Their mean is {format_change(mean)}; {unexplained}. "
    weighted = best.weighted_delta_m
    more = "" if weighted is None else f"; weighted by {result.preferred} it is {format_change(weighted)}"
    return f"Their mean is delta_m = {format_change(mean)}{more}. "


def _task_row(task: str, best: Entry, change: Change | None, scale: float) -> list[Child]:
    if change is None:
        return [task, "", "", "", "", "", _other_scores(best, task, "")]
    direction = "↑ higher is better" if change.metric.higher_is_better else "↓ lower is better"
    return [
        task,
        element("b", format_change(change.relative), class_="good-text" if change.relative >= 0 else "bad-text"),
        _diverging(change.relative / scale),
        format_metric(change.metric.name, change.baseline),
        format_metric(change.metric.name, change.value),
        (change.metric.name, element("small", f" {direction}")),
        element("span", _other_scores(best, task, change.metric.name), class_="soft"),
    ]


def _diverging(share: float) -> Markup:
    """A bar from the middle: right and green where better, left and red where worse."""
    width = min(1.0, abs(share)) * 50
    left = 50.0 if share >= 0 else 50.0 - width
    bar = element("i", class_="c-good" if share >= 0 else "c-bad", style=f"left:{left:.1f}%;width:{width:.1f}%")
    return element("span", bar, class_="diverging")


def _other_scores(entry: Entry, task: str, besides: str) -> str:
    scores = [(name, value) for name, value in entry.metrics[task].items() if name != besides]
    return ", ".join(f"{name} {format_metric(name, value)}{_arrow(name)}" for name, value in scores)


def _arrow(name: str) -> str:
    metric = known_metric(name)
    return "" if metric is None else (" ↑" if metric.higher_is_better else " ↓")
