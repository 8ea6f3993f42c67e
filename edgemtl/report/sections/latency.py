"""Sections that a profile fills: latency of every mode, what each task costs, and where the operators' time goes."""

from __future__ import annotations

from collections.abc import Sequence

from edgemtl.profiling import EnergyFigure, LatencyBlock, OperatorShare, Profile, conditions_of, samples_needed
from edgemtl.report.drawing.html import Child, Markup, element, table
from edgemtl.report.drawing.parts import card, kind_badge, meter, ms_text, task_class
from edgemtl.report.drawing.svg import histogram
from edgemtl.report.load import ReportData
from edgemtl.units import format_bytes

__all__ = ["operators_section", "profile_section"]

ROWS_OPEN = 12
_PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def profile_section(data: ReportData, profile: Profile) -> Markup:
    """Latency of every mode with its spread, what each task costs, and what opening takes."""
    block = profile.latency
    threads = f"{profile.threads} threads" if profile.threads else "threads chosen by the runtime"
    lead = (
        f"{block.includes[:1].upper()}{block.includes[1:]}; batch {block.batch}, {threads}, {block.warmup} calls of "
        "warm-up. Figures in ms. Modes were timed in turns, and nothing was clipped."
    )
    lines = {name: value for name in _PERCENTILES if (value := _percentile(block, name)) is not None}
    picture = histogram(block.samples_ms, lines, title="samples of latency, all tasks", unit="ms")
    caption = element("figcaption", f"All tasks in one call: {block.n} samples ", kind_badge(block.kind))
    words = element("div", _sharing(profile), _opening(profile), _energy(profile))
    return card(
        f"Latency on {profile.device}/{profile.runtime}",
        lead,
        _verdict(profile),
        element("ul", [element("li", note) for note in profile.notes], class_="reasons") if profile.notes else None,
        _modes_table(profile),
        element("div", element("figure", picture, caption), words, class_="charts gap"),
        _costs_table(data, profile),
    )


def _verdict(profile: Profile) -> Child:
    stability = profile.stability
    word, class_ = ("stable", "pill good") if stability.stable else ("unstable", "pill warn")
    facts = f" largest variation {stability.worst_cov:.1%}; {conditions_of(profile)}"
    if stability.others_cpu is not None:
        facts += f"; other processes {stability.others_cpu:.0%} of the machine"
    reasons = [element("li", reason) for reason in stability.reasons]
    return (
        element("p", element("span", word, class_=class_), facts),
        element("ul", reasons, class_="reasons") if reasons else None,
    )


def _percentile(block: LatencyBlock, name: str) -> float | None:
    return {"p50": block.p50_ms, "p90": block.p90_ms, "p99": block.p99_ms}[name]


def _modes_table(profile: Profile) -> Markup:
    rows = [[mode.name, *_latency_cells(mode.latency)] for mode in profile.modes]
    return table(["tasks in one call", "n", "min", "mean", *_PERCENTILES, "variation"], rows)


def _latency_cells(block: LatencyBlock) -> list[Child]:
    cells: list[Child] = [f"{block.n}", ms_text(block.min_ms), ms_text(block.mean_ms)]
    return [*cells, *(_percentile_cell(block, name) for name in _PERCENTILES), f"{block.cov:.1%}"]


def _percentile_cell(block: LatencyBlock, name: str) -> Child:
    value = _percentile(block, name)
    if value is None:
        needed = samples_needed(_PERCENTILES[name])
        return element("span", "hidden", class_="sub", title=f"{block.n} samples are too few: {needed} are needed")
    interval = next((ends for key, ends in block.intervals_ms.items() if key == name), None)
    if interval is None:
        return ms_text(value)
    return (ms_text(value), element("br"), element("small", f"{ms_text(interval[0])} to {ms_text(interval[1])}"))


def _sharing(profile: Profile) -> Child:
    together, apart = profile.latency.typical_ms, profile.separate_ms
    if apart is None:
        return None
    ratio = apart.value / together if together > 0 else 0.0
    return element(
        "p",
        element("b", "Is sharing worth it? "),
        f"All {len(profile.tasks)} tasks in one call take {ms_text(together)} ms, one after another ",
        f"{ms_text(apart.value)} ms ",
        kind_badge(apart.kind),
        f": one call is {ratio:.2f} times as fast.",
    )


def _opening(profile: Profile) -> Child:
    opening = profile.opening
    if opening is None:
        return None
    text = (
        f"A fresh process opens the engine in {ms_text(opening.open_ms)} ms (libraries included) and runs it for the "
        f"first time in {ms_text(opening.first_run_ms)} ms"
    )
    if opening.run_peak_bytes is not None and opening.baseline_bytes is not None:
        grown = format_bytes(opening.run_peak_bytes - opening.baseline_bytes)
        text += f"; its memory peaks at {format_bytes(opening.run_peak_bytes)}, {grown} more than before"
    return element("p", element("b", "Opening. "), text, " ", kind_badge("measured"))


def _energy(profile: Profile) -> Child:
    energy = profile.energy
    if energy is None:
        reason = profile.energy_unmeasured
        return element("p", element("b", "Energy. "), f"Not measured: {reason}.") if reason else None
    whole, rate = energy.modes[profile.modes[0].name], energy.rate_hz
    how = "counters read at both ends" if rate is None else f"power read {rate:.0f} times a second and integrated"
    covered = ", ".join(energy.rails)
    text = f"A call of all tasks takes {_mj(whole)} above {energy.idle_w:.3g} W of idling; {covered}, {how}."
    margins = "; ".join(f"{task} {_mj(figure)}" for task, figure in energy.marginal.items())
    at_margin = f" Each task at the margin: {margins}." if margins else ""
    return element("p", element("b", "Energy. "), text + at_margin, " ", kind_badge(energy.kind))


def _mj(figure: EnergyFigure) -> str:
    return f"{figure.mj:.3g} ± {figure.uncertainty_mj:.2g} mJ"


def _costs_table(data: ReportData, profile: Profile) -> Child:
    if profile.trunk_ms is None:
        return None
    rows: list[list[Child]] = []
    for task, costs in profile.task_costs.items():
        cells: list[Child] = [
            None if figure is None else (f"{ms_text(figure.value)} ", kind_badge(figure.kind))
            for figure in (costs.alone_ms, costs.own_ms, costs.marginal_ms)
        ]
        name = element("span", element("span", class_=f"swatch {task_class(task, data.tasks)}"), task, class_="named")
        rows.append([name, *cells])
    trunk = f"Trunk {ms_text(profile.trunk_ms.value)} ms = {profile.trunk_ms.how}; own part = task alone - trunk."
    costs_table = table(["task", "alone, ms", "own part, ms", "saved without it, ms"], rows)
    return (element("h3", "What each task costs"), costs_table, element("p", trunk, class_="sub wrap"))


def operators_section(data: ReportData, profile: Profile) -> Markup | None:
    """Where the time goes inside the engine, by block and by type of operator."""
    operators = profile.operators
    if operators is None:
        return None
    lead = (
        f"The runtime's own profile, mean of {operators.runs} runs of all tasks: {ms_text(operators.total_ms)} ms in "
        "operators. Profiling costs time itself: read the shares."
    )
    halves = element(
        "div",
        element("div", element("h3", "By block"), _shares(operators.by_block, "block", data)),
        element("div", element("h3", "By type"), _shares(operators.by_type, "type", data)),
        element("div", element("h3", "By unit"), _shares(operators.by_unit, "unit", data))
        if operators.by_unit
        else None,
        class_="charts",
    )
    return card(f"Operators on {profile.device}/{profile.runtime}", lead, halves)


def _shares(rows: Sequence[OperatorShare], what: str, data: ReportData) -> Child:
    """A row for each share; what ran it where the runtime tells."""
    largest = max((row.share for row in rows), default=0.0) or 1.0
    has_units = any(row.unit for row in rows)
    cells: list[list[Child]] = []
    for row in rows:
        bar = meter(row.share / largest, task_class(row.owner, data.tasks) if what == "block" else "c-accent")
        unit: list[Child] = [row.unit] if has_units else []
        cells.append([row.name, *unit, f"{row.operators}", ms_text(row.ms), f"{row.share:.1%}", bar])
    head: list[Child] = [what, *(["ran on"] if has_units else []), "operators", "ms", "share", ""]
    numbers = range(1 + has_units, len(head))
    if len(cells) <= ROWS_OPEN:
        return table(head, cells, numbers=numbers)
    more = table(head, cells[ROWS_OPEN:], numbers=numbers)
    rest = element("details", element("summary", f"{len(cells) - ROWS_OPEN} more"), more)
    return (table(head, cells[:ROWS_OPEN], numbers=numbers), rest)
