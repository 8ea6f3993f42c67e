"""The picture of a search for more than two objectives: an axis for each, a line for each design."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edgemtl.report.drawing.html import Child, Markup, element
from edgemtl.report.drawing.parallel import Coordinate, Line, parallel_coordinates
from edgemtl.report.drawing.parts import kind_badge, ms_text
from edgemtl.report.drawing.svg import short_number
from edgemtl.report.metrics import changes
from edgemtl.report.sections.entries import describe, entry_kind, score_name, score_of
from edgemtl.results import Entry, Latency, Result

__all__ = ["objectives_figure"]

_COUNTED: Mapping[str, Callable[[Entry], float]] = {
    "flops": lambda entry: entry.flops,
    "params": lambda entry: entry.params,
    "bytes": lambda entry: entry.bytes,
}


def objectives_figure(entries: Sequence[Entry], result: Result, kinds: Mapping[str, str]) -> Markup | None:
    """Parallel coordinates of the objectives; None for two or fewer, and where fewer than two designs have them all.

    Latencies of several kinds and places never share an axis: it is that of the chosen design, and the caption says how
    many designs are left out.
    """
    if len(result.objectives) < 3:
        return None
    rows = [(entry, _values(entry, result, kinds)) for entry in entries]
    lines = [
        Line(tuple(values), entry_kind(entry, result), describe(entry, result))
        for entry, given in rows
        if len(values := [value for value in given if value is not None]) == len(given)
    ]
    if len(lines) < 2:
        return None
    axes = [_axis(name, result) for name in result.objectives]
    left_out = len(entries) - len(lines)
    caption: list[Child] = ["The objectives side by side, better is up on each ", *_badges(result)]
    caption += [f" ({left_out} designs without all of these figures are left out)"] if left_out else []
    chart = parallel_coordinates(axes, lines, title=f"objectives: {', '.join(result.objectives)}")
    return element("figure", chart, element("figcaption", caption))


def _values(entry: Entry, result: Result, kinds: Mapping[str, str]) -> list[float | None]:
    """An entry's value of each objective as its axis shows it; None where it has none."""
    base = result.baseline
    by_task = {change.task: change.relative for change in changes(entry, base, kinds)} if base else {}
    latency = entry.latency_ms if _origin(entry.latency_ms) == _origin(_shown_latency(result)) else None
    score = score_of(entry, result)
    values: list[float | None] = []
    for name in result.objectives:
        if name in _COUNTED:
            values.append(_COUNTED[name](entry))
        elif name == "latency":
            values.append(latency.value if latency else None)
        else:
            share = score if name == "delta_m" else by_task.get(name)
            values.append(None if share is None else 100 * share)
    return values


def _axis(name: str, result: Result) -> Coordinate:
    if name in _COUNTED:
        return Coordinate({"flops": "FLOPs"}.get(name, name), False, _short)
    if name == "latency":
        return Coordinate("ms", False, ms_text)
    return Coordinate(f"{score_name(result) if name == 'delta_m' else name}, %", True, _signed)


def _short(count: float) -> str:
    """Three significant figures, as 4.29M."""
    return short_number(float(f"{count:.3g}"))


def _signed(percent: float) -> str:
    return f"{percent:+.1f}" if round(percent, 1) else "0"


def _shown_latency(result: Result) -> Latency | None:
    return result.best.latency_ms if result.best else None


def _origin(latency: Latency | None) -> tuple[str, str, str] | None:
    return (latency.kind, latency.device, latency.runtime) if latency else None


def _badges(result: Result) -> list[Markup]:
    """How figures that are not scores were obtained."""
    latency = _shown_latency(result) if "latency" in result.objectives else None
    names = ["counted"] if set(_COUNTED) & set(result.objectives) else []
    return [kind_badge(name) for name in (*names, *([latency.kind] if latency else []))]
