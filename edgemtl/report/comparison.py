"""Two runs, bundles or profiles side by side, as ratios, with notes on what weakens the comparison."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, TypedDict

from edgemtl.errors import UserError
from edgemtl.profiling import LatencyBlock, Profile
from edgemtl.report.drawing.parts import WEIGHTED
from edgemtl.report.load import ReportData, load_report_data
from edgemtl.report.metrics import known_metric
from edgemtl.results import Entry, Result

__all__ = ["Comparison", "ComparisonRow", "compare", "comparison_cells"]

COLUMNS = ("figure", "first", "second", "second / first", "better", "how obtained")
DELTA = "delta_m"
SAME_SCORE = 0.005
"""Relative difference of two scores of one net by engines of different runtimes, at most."""


class ComparisonRow(TypedDict):
    """One figure of both. `ratio` is second over first; `better` is None where neither direction is.

    `overlap` tells whether the 95 % intervals of two measured medians overlap: then no difference was shown.
    """

    what: str
    unit: str
    kind: str
    first: float | None
    second: float | None
    ratio: float | None
    better: Literal["first", "second", "equal"] | None
    overlap: bool | None


class Comparison(TypedDict):
    """The values of both sides, as plain JSON."""

    first: str
    second: str
    rows: list[ComparisonRow]
    notes: list[str]


_Figure = tuple[str, str, float, bool | None, tuple[float, float] | None]
"""Unit, kind, value, whether lower is better (None: neither), and its 95 % interval."""


def compare(first: Path, second: Path) -> Comparison:
    """Compare two run folders, bundles, or result, manifest or profile files, in everything that both hold.

    Where each side has one profile the two are compared, whatever ran them; of several, those of the same device and
    runtime. Raises `UserError` where a side cannot be read or nothing is common.
    """
    stories = load_report_data(first), load_report_data(second)
    single = all(len(data.profiles) == 1 for data in stories)
    left, right = (dict(_figures(data, single)) for data in stories)
    common = [what for what in left if what in right]
    if not common:
        raise UserError(f"{first} and {second} have no figure in common: profile both, or give two runs or two bundles")
    only = [what for what in (*left, *right) if (what in left) != (what in right)]
    rows = [_row(what, left.get(what), right.get(what)) for what in (*common, *dict.fromkeys(only))]
    rows = [row | {"ratio": None, "better": None} if _incomparable(row, *stories) else row for row in rows]
    return {"first": str(first), "second": str(second), "rows": rows, "notes": list(_notes(*stories, rows))}


def comparison_cells(comparison: Comparison) -> list[tuple[str, ...]]:
    """A comparison's rows in words, for a table with the columns `COLUMNS`."""
    return [
        (
            row["what"],
            _words(row["first"], row["unit"]),
            _words(row["second"], row["unit"]),
            "-" if row["ratio"] is None else f"{row['ratio']:.3f}",
            "within noise" if row["overlap"] else row["better"] or "-",
            row["kind"],
        )
        for row in comparison["rows"]
    ]


def _words(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    if unit in ("FLOPs", "MACs", "B", "parameters"):
        for scale, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if value >= scale:
                return f"{value / scale:.2f} {prefix}{unit if unit != 'parameters' else ''}".rstrip()
    return f"{value:.4g} {unit}".rstrip()


def _row(what: str, left: _Figure | None, right: _Figure | None) -> ComparisonRow:
    unit, kind, _, lower, _ = left or right or ("", "", 0.0, None, None)
    one, two = left and left[2], right and right[2]
    overlap = None
    if left is not None and right is not None and left[4] is not None and right[4] is not None:
        overlap = left[4][0] <= right[4][1] and right[4][0] <= left[4][1]
    better: Literal["first", "second", "equal"] | None = None
    if one is not None and two is not None and lower is not None:
        better = "equal" if one == two else "first" if (one < two) == lower else "second"
    return {
        "what": what,
        "unit": unit,
        "kind": kind,
        "first": one,
        "second": two,
        "ratio": two / one if one is not None and two is not None and one > 0 else None,
        "better": better,
        "overlap": overlap,
    }


def _figures(data: ReportData, single: bool) -> Iterator[tuple[str, _Figure]]:
    yield from _counts(data)
    if data.result is not None and data.result.best is not None:
        yield from _scores(data.result.best, data.result.preferred)
    for profile in data.profiles:
        yield from _profile_figures(profile, "" if single else f", {_measured_on(profile)}")


def _measured_on(profile: Profile) -> str:
    return f"{profile.device}/{profile.runtime}"


def _scores(best: Entry, preferred: str) -> Iterator[tuple[str, _Figure]]:
    latency = best.latency_ms
    if latency is not None:
        label = f"latency, {latency.device}/{latency.runtime}, {latency.kind}"
        yield label, ("ms", latency.kind, latency.value, True, None)
    if best.delta_m is not None:
        yield DELTA, ("", "evaluated", best.delta_m, False, None)
    if best.weighted_delta_m is not None:
        yield f"{WEIGHTED}, {preferred}", ("", "evaluated", best.weighted_delta_m, False, None)
    for task, scores in best.metrics.items():
        for name, value in scores.items():
            metric = known_metric(name)
            lower = None if metric is None else not metric.higher_is_better
            yield f"{task} {name}", (metric.unit if metric else "", "evaluated", value, lower, None)


def _counts(data: ReportData) -> Iterator[tuple[str, _Figure]]:
    if data.cost is None:
        return
    flops, params, weight_bytes = data.cost
    for what, unit, value in (
        ("FLOPs", "FLOPs", flops),
        ("MACs", "MACs", None if flops is None else flops // 2),
        ("parameters", "parameters", params),
        ("weights", "B", weight_bytes),
    ):
        if value is not None:
            yield what, (unit, "counted", float(value), True, None)


def _profile_figures(profile: Profile, suffix: str) -> Iterator[tuple[str, _Figure]]:
    for mode in profile.modes:
        for name, value in _latencies(mode.latency).items():
            ends = next((pair for key, pair in mode.latency.intervals_ms.items() if key == name), None)
            yield f"{mode.name}, {name}{suffix}", ("ms", mode.latency.kind, value, True, ends)
    if profile.trunk_ms is not None:
        yield f"trunk{suffix}", ("ms", profile.trunk_ms.kind, profile.trunk_ms.value, True, None)
    if profile.opening is not None:
        yield f"opening{suffix}", ("ms", "measured", profile.opening.open_ms, True, None)
        if profile.opening.run_peak_bytes is not None:
            yield f"peak memory{suffix}", ("B", "measured", float(profile.opening.run_peak_bytes), True, None)


def _latencies(block: LatencyBlock) -> Mapping[str, float]:
    shown = {"mean": block.mean_ms, "p50": block.p50_ms, "p90": block.p90_ms, "p99": block.p99_ms}
    return {name: value for name, value in shown.items() if value is not None}


def _notes(left: ReportData, right: ReportData, rows: list[ComparisonRow]) -> Iterator[str]:
    if left.result is not None and right.result is not None:
        yield from _search_notes(left.result, right.result)
    if any(row["kind"] == "measured" and row["ratio"] is not None for row in rows):
        yield (
            "latencies were measured in two separate sessions, not in turns: trust a difference only where it is "
            "larger than the spread of both"
        )
    if len(left.profiles) == len(right.profiles) == 1:
        first, second = _measured_on(left.profiles[0]), _measured_on(right.profiles[0])
        if first != second:
            yield f"the first was measured on {first}, the second on {second}"
    environments = [_machine(left), _machine(right)]
    for what in environments[0]:
        one, two = environments[0][what], environments[1].get(what)
        if one and two and one != two:
            yield f"{what} differs: {one} and {two}"
    for data, side in ((left, "first"), (right, "second")):
        yield from (f"of the {side}: {note}" for note in data.notes)
        for profile in data.profiles:
            yield from (f"of the {side}: {note}" for note in profile.notes)
        if any(not profile.stability.stable for profile in data.profiles):
            yield f"the {side} was measured on an unsteady machine, see its profile"


def _search_notes(left: Result, right: Result) -> Iterator[str]:
    """Differences between the requests, reasons why scores are incomparable, and limits that a design breaks."""
    limits = [[*result.budgets, *(f"floor {text}" for text in result.floors)] for result in (left, right)]
    if limits[0] != limits[1]:
        yield f"limits differ: {' and '.join(', '.join(texts) or 'none' for texts in limits)}"
    if left.preferred != right.preferred:
        texts = " and ".join(result.preferred or "none" for result in (left, right))
        yield f"preferences differ ({texts}): {WEIGHTED} cannot be compared; delta_m counts all tasks alike in both"
    if _data(left) != _data(right):
        yield "scored on different data: their scores cannot be compared"
    elif not _same_baseline(left, right):
        yield "baselines differ, so the two delta_m cannot be compared: compare the tasks' own scores"
    for result, side in ((left, "first"), (right, "second")):
        for check in result.best.broken if result.best is not None else ():
            yield f"the {side} breaks {check.name}: {check.words}"


def _incomparable(row: ComparisonRow, left: ReportData, right: ReportData) -> bool:
    """Whether a score of two searches has no common yardstick: other data or, where relative, another baseline."""
    if row["kind"] != "evaluated" or left.result is None or right.result is None:
        return False
    relative = row["what"].startswith((DELTA, WEIGHTED))
    return _data(left.result) != _data(right.result) or (relative and not _same_baseline(left.result, right.result))


def _same_baseline(left: Result, right: Result) -> bool:
    """Whether both baselines score alike."""
    if left.baseline is None or right.baseline is None:
        return False
    scores = [
        {(task, name): value for task, metrics in base.metrics.items() for name, value in metrics.items()}
        for base in (left.baseline, right.baseline)
    ]
    return scores[0].keys() == scores[1].keys() and all(
        math.isclose(value, scores[1][key], rel_tol=SAME_SCORE) for key, value in scores[0].items()
    )


def _data(result: Result) -> object:
    return (
        result.data if isinstance(result.data, str) else (result.data.get("fingerprint"), result.data.get("scored_on"))
    )


def _machine(data: ReportData) -> dict[str, str]:
    """Properties that must be equal for two latencies to be comparable."""
    recorded = data.profiles[0].environment if data.profiles else data.result.environment if data.result else {}
    cpu, packages = recorded.get("cpu"), recorded.get("packages")
    values: dict[str, str] = {}
    if isinstance(cpu, dict):
        values |= {"processor": str(cpu.get("model")), "threads": str(cpu.get("usable_threads"))}
    if isinstance(packages, dict):
        values |= {name: str(packages.get(name)) for name in ("onnxruntime", "openvino")}
    return values
