"""The top of the page: title, verdict on the budgets, and the most important figures."""

from __future__ import annotations

from collections.abc import Mapping

from edgemtl.profiling import Profile
from edgemtl.report.drawing.html import Child, Markup, element
from edgemtl.report.drawing.parts import WEIGHTED, count_text, kind_badge, latency_text, listed, ms_text, short_flops
from edgemtl.report.load import ReportData
from edgemtl.report.metrics import changes, format_change, worst_change
from edgemtl.results import Latency, Result
from edgemtl.units import format_bytes, format_duration, format_flops

__all__ = ["header"]


def header(data: ReportData) -> Markup:
    """Title, verdict, request, and tiles of figures."""
    pill, headline = _verdict(data)
    return element(
        "header",
        element("div", "edgemtl report", class_="eyebrow"),
        element("h1", data.name),
        element("p", pill, headline, class_="headline"),
        _measured_twice(data),
        [element("p", note, class_="lead") for note in data.notes],
        element("div", [element("span", element("b", key), f" {value}") for key, value in _facts(data)], class_="meta"),
        element("div", [_tile(*tile) for tile in _tiles(data)], class_="tiles"),
    )


def _verdict(data: ReportData) -> tuple[Markup, str]:
    result = data.result
    if result is not None:
        return _search_verdict(result)
    if data.manifest is not None:
        cost = data.manifest.cost
        targets = ", ".join(data.manifest.targets) or "no target"
        return element(
            "span", "bundle", class_="pill"
        ), f"{format_flops(cost.flops)}, {format_bytes(cost.weight_bytes)}, for {targets}"
    profile = data.profiles[0]
    word, class_ = ("stable", "pill good") if profile.stability.stable else ("unstable", "pill warn")
    ms = f"{ms_text(profile.latency.typical_ms)} ms {profile.latency.kind}"
    text = f"{ms} on {_measured_on(profile)}, all tasks in one call"
    return element("span", word, class_=class_), text


def _search_verdict(result: Result) -> tuple[Markup, str]:
    """Which limits are kept, or which one is broken and by how much, then the figures of the chosen design."""
    limits = [*result.budgets, *(f"floor {text}" for text in result.floors)]
    best = result.best
    if best is None:
        pill = element("span", f"nothing keeps {listed(limits) or 'no limit'}", class_="pill bad")
        return pill, "the search found no design that keeps every budget and floor"
    figures = [format_flops(best.flops), format_bytes(best.bytes)]
    if best.latency_ms is not None:
        figures.append(latency_text(best.latency_ms))
    if result.feasible:
        verdict = f"keeps {listed(limits)}" if limits else "no budget given"
        return element("span", verdict, class_="pill good" if limits else "pill"), ", ".join(figures)
    broken = listed([check.name for check in best.broken]) or "a budget or floor"
    how = "; ".join(check.words for check in best.broken)
    nearest = f"{how}. No design keeps every limit; the nearest takes " if how else ""
    return element("span", f"breaks {broken}", class_="pill bad"), f"{nearest}{', '.join(figures)}"


def _measured_twice(data: ReportData) -> Child:
    """Where the search and a profile timed the same place: when, under what load, and which figure counts for what."""
    result = data.result
    latency = result.best.latency_ms if result is not None and result.best is not None else None
    profile = next((each for each in data.profiles if latency and _measured_on(each) == _measured_on(latency)), None)
    if result is None or latency is None or profile is None:
        return None
    counts = "it is of the exported engine, and counts for what is deployed"
    if not profile.stability.stable:
        counts = "unstable, so it does not count: profile again on a machine that does nothing else"
    return element(
        "p",
        f"Two latencies stand here. {ms_text(latency.value)} ms, {latency.origin} by the search"
        f"{_when(result.environment, None)}, decided the budgets. "
        f"{ms_text(profile.latency.typical_ms)} ms, measured by the profile"
        f"{_when(profile.environment, profile.stability.load_average)}: {counts}.",
        class_="lead",
    )


def _measured_on(figure: Profile | Latency) -> str:
    return f"{figure.device}/{figure.runtime}"


def _when(environment: Mapping[str, object], load: float | None) -> str:
    """` on 2026-11-28 18:03 UTC at a load of 0.80`, as far as it is known."""
    time, loads = environment.get("time_utc"), environment.get("load_average")
    day = f" on {time[:10]} {time[11:16]} UTC" if isinstance(time, str) and len(time) >= 16 else ""
    if load is None and isinstance(loads, list) and loads and isinstance(loads[0], int | float):
        load = loads[0]
    return day + (f" at a load of {load:.2f}" if load is not None else "")


def _facts(data: ReportData) -> list[tuple[str, str]]:
    facts: list[tuple[str, str]] = []
    if data.result is not None:
        result = data.result
        facts += [("data", _data(result)), ("space", result.space), ("strategy", result.strategy)]
        facts += [("designs scored", f"{result.evaluations}"), ("took", format_duration(result.seconds))]
        facts += [("seed", f"{result.seed}")] if result.seed is not None else []
        facts += [("preference", result.preferred)] if result.preferred else []
        facts += [("fine-tuned", text)] if (text := _fine_tuned(result)) else []
    if data.manifest is not None:
        height, width = data.manifest.input.height, data.manifest.input.width
        facts += [("bundle", data.manifest.name), ("made", data.manifest.created), ("input", f"{height} x {width}")]
    if data.tasks:
        facts.append(("tasks", ", ".join(data.tasks)))
    return facts


def _fine_tuned(result: Result) -> str:
    """How long the chosen design was trained after the search, and what for; empty where it was not."""
    if result.best is None or (tuned := result.best.fine_tuning) is None:
        return ""
    before, after = (format_change(change) for change in (tuned.delta_m_before, tuned.delta_m_after))
    return f"{tuned.steps} steps, delta_m on validation images {before} before, {after} after"


def _data(result: Result) -> str:
    """Name of the data and what the scores were taken on; its hash stands in the environment section."""
    if isinstance(result.data, str):
        return result.data
    scored = result.data.get("scored_on")
    return f"{result.data.get('name', 'unnamed')}{f', scored on {scored}' if scored else ''}"


Tile = tuple[str, Child, Child]


def _tile(what: Child, value: Child, more: Child) -> Markup:
    parts = (("what", what), ("value", value), ("more", more))
    return element(
        "div", [element("div", part, class_=name) for name, part in parts if part is not None], class_="tile"
    )


def _tiles(data: ReportData) -> list[Tile]:
    return [*_cost_tiles(data), *_latency_tiles(data), *_score_tiles(data)]


def _cost_tiles(data: ReportData) -> list[Tile]:
    if data.cost is None:
        return []
    flops, params, weight_bytes = data.cost
    compute: Tile = ("compute, all tasks", "not counted", "see the notes on latency")
    if flops is not None:
        macs = format_flops(flops).partition("(")[2].rstrip(")")
        compute = ("compute, all tasks", short_flops(flops), (macs, " ", kind_badge("counted")))
    return [compute, ("weights", format_bytes(weight_bytes), (f"{count_text(params)} params ", kind_badge("counted")))]


def _latency_tiles(data: ReportData) -> list[Tile]:
    if data.profiles:
        return [_profile_tile(profile) for profile in data.profiles[:3]]
    latency = data.result.best.latency_ms if data.result is not None and data.result.best is not None else None
    if latency is None:
        return []
    error = "" if latency.error is None else f" error {100 * latency.error:.1f} %"
    badge = kind_badge(latency.kind), error
    return [(f"latency, {latency.device}/{latency.runtime}", f"{ms_text(latency.value)} ms", badge)]


def _profile_tile(profile: Profile) -> Tile:
    block = profile.latency
    which = "median" if block.p50_ms is not None else "mean"
    unstable = None if profile.stability.stable else element("span", "unstable", class_="pill warn")
    return (
        f"latency, {_measured_on(profile)}",
        (f"{ms_text(block.typical_ms)} ms ", unstable),
        (f"{which} of {block.n} ", kind_badge(block.kind)),
    )


def _score_tiles(data: ReportData) -> list[Tile]:
    result = data.result
    if result is None or result.best is None or result.best.delta_m is None:
        return []
    delta = result.best.delta_m
    tiles: list[Tile] = [("delta_m, mean over tasks", _signed(delta), "against the baseline, all alike")]
    if result.best.weighted_delta_m is not None:
        tiles.append((WEIGHTED, _signed(result.best.weighted_delta_m), result.preferred.replace(",", ", ")))
    worst = worst_change(changes(result.best, result.baseline, data.kinds)) if result.baseline is not None else None
    if worst is not None:
        tiles.append(("worst task", _signed(worst.relative), worst.task))
    return tiles


def _signed(fraction: float) -> Markup:
    return element("span", format_change(fraction), class_="good-text" if fraction >= 0 else "bad-text")
