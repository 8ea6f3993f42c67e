"""Tables of results and profiles: layout only, every figure comes from the object shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgemtl.cli.screen import Screen
from edgemtl.units import format_bytes, format_flops

if TYPE_CHECKING:
    from edgemtl.profiling import Counts, EnergyFigure, Figure, Operators, Profile
    from edgemtl.results import Entry, Latency, Result

__all__ = ["show_profile", "show_result"]

OPERATORS = 8
WEIGHTED = "weighted delta_m"
_REMEDIES = {
    "prune": "train it further",
    "precision": "search further with --strategy linas",
    "pruning and precision": "search further with --strategy linas",
}
"""Advice where no design keeps all limits, by strategy."""
_YES_NO = {True: "yes", False: "no", None: None}


def show_result(screen: Screen, result: Result) -> None:
    """The front and the chosen design of a search."""
    columns = (
        [(task, next(iter(scores))) for task, scores in (result.best or result.front[0]).metrics.items()]
        if result.front
        else []
    )
    latency = next((entry.latency_ms for entry in reversed(result.front) if entry.latency_ms), None)
    timed = f"{latency.kind} ms, {latency.runtime} on {latency.device}" if latency else "ms"
    names = (
        "design",
        *(f"{task} {metric}" for task, metric in columns),
        "delta_m",
        *([WEIGHTED] if result.preferred else []),
        "FLOPs (MACs)",
        "weights",
        timed,
        "within limits",
    )
    screen.table(
        "Pareto front, scored on test images", names, [_entry(entry, columns, result) for entry in result.front]
    )
    if result.best is None:
        screen.say("no design was found")
    elif not result.feasible:
        more = _REMEDIES.get(result.strategy, "give more --evaluations")
        broken = "; ".join(f"{check.name}: {check.words}" for check in result.best.broken)
        nearest = f"'best' is the nearest{f' ({broken})' if broken else ''}"
        screen.say(f"no evaluated design keeps every limit, {nearest}: raise a limit, or {more}")
    if result.preferred:
        screen.say(f"{WEIGHTED}: the mean of tasks weighted by {result.preferred}; delta_m counts them alike")
    if result.best is not None and (tuned := result.best.fine_tuning) is not None:
        before, after = _change(tuned.delta_m_before), _change(tuned.delta_m_after)
        screen.say(f"the chosen design was trained for {tuned.steps} steps: validation delta_m {before} to {after}")
    for figure, origin in result.known_from.items():
        screen.say(f"{figure}: {origin}")
    if result.origin is not None:
        screen.say(result.origin.words)
    screen.say(f"{result.evaluations} designs evaluated in {result.seconds:.0f} s")
    if result.early_stops is not None and result.early_stops.designs:
        screen.say(result.early_stops.words(result.evaluations))


def _entry(entry: Entry, columns: list[tuple[str, str]], result: Result) -> tuple[object, ...]:
    chosen = result.best is not None and entry.design == result.best.design
    return (
        f"{entry.name or 'design'}{' (chosen)' if chosen and entry.name != 'best' else ''}",
        *(entry.metrics.get(task, {}).get(metric) for task, metric in columns),
        _change(entry.delta_m),
        *([_change(entry.weighted_delta_m)] if result.preferred else []),
        format_flops(entry.flops),
        format_bytes(entry.bytes),
        None if entry.latency_ms is None else _latency(entry.latency_ms),
        f"no: {', '.join(check.name for check in entry.broken)}" if entry.broken else _YES_NO[entry.feasible],
    )


def _latency(latency: Latency) -> str:
    origin = "" if latency.kind == "measured" else f" {latency.origin}"
    return f"{latency.value:.2f}{origin}"


def _change(fraction: float | None) -> str | None:
    return None if fraction is None else f"{100 * fraction:+.2f} %"


def show_profile(screen: Screen, profile: Profile) -> None:
    """Latency of every mode, what each task costs, and where the operators' time goes."""
    from edgemtl.profiling import conditions_of

    modes = []
    for mode in profile.modes:
        block = mode.latency
        modes.append(
            (
                mode.name,
                block.n,
                *(_ms(v) for v in (block.min_ms, block.p50_ms, block.mean_ms, block.p90_ms, block.p99_ms)),
                f"{block.cov:.1%}",
            )
        )
    verdict = "" if profile.stability.stable else " (unstable, see the notes)"
    title = f"{profile.name}: measured latency in ms, {profile.runtime} on {profile.device}{verdict}"
    screen.table(title, ("tasks in the call", "n", "min", "p50", "mean", "p90", "p99", "variation"), modes)
    costs = [
        (task, *(_figure(figure) for figure in (cost.alone_ms, cost.own_ms, cost.marginal_ms)))
        for task, cost in profile.task_costs.items()
    ]
    if profile.trunk_ms is not None:
        costs.insert(0, ("shared trunk", _figure(profile.trunk_ms), None, None))
    screen.table("What each task costs in ms", ("part", "alone", "own part", "saved without it"), costs)
    if profile.energy is not None:
        rows = [(name, _energy(figure)) for name, figure in profile.energy.modes.items()]
        rows += [(f"{task} at the margin", _energy(figure)) for task, figure in profile.energy.marginal.items()]
        rails, rate = ", ".join(profile.energy.rails), profile.energy.rate_hz
        how = "" if rate is None else f", read {rate:.0f} times a second"
        title = f"Energy of a call in mJ, above {profile.energy.idle_w:.3g} W of idling: {rails}{how}"
        screen.table(title, ("tasks in the call", "mJ"), rows)
    elif profile.energy_unmeasured:
        screen.say(f"energy: not measured, {profile.energy_unmeasured}")
    if profile.counts is not None:
        columns = ("part", "FLOPs (MACs)", "parameters", "weights", "activations at once", "fewer without it")
        screen.table("Counted on the graph", columns, _counts(profile.counts))
    if profile.operators is not None:
        _operators(screen, profile.operators)
    screen.say(f"while it was measured: {conditions_of(profile)}")
    for note in profile.notes:
        screen.say(f"note: {note}")
    for reason in profile.stability.reasons:
        screen.note(f"note: {reason}")


def _operators(screen: Screen, operators: Operators) -> None:
    """Time by block, and by the unit that ran it where the runtime has several."""
    has_units = bool(operators.by_unit)
    shares = [
        (s.name, s.owner or None, *([s.unit or None] if has_units else []), s.operators, f"{s.share:.1%}")
        for s in operators.by_block[:OPERATORS]
    ]
    columns = ("block", "task", *(["ran on"] if has_units else []), "operators", "share")
    screen.table("Where the time goes", columns, shares)
    if has_units:
        rows = [(s.name, s.operators, f"{s.share:.1%}") for s in operators.by_unit]
        screen.table("What ran it", ("unit", "operators", "share"), rows)


def _energy(figure: EnergyFigure) -> str:
    return f"{figure.mj:.3g} ± {figure.uncertainty_mj:.2g}"


def _counts(counts: Counts) -> list[tuple[str | None, ...]]:
    """Rows for all tasks, for the part that several share, and for each task's own part."""
    parts = [("all tasks", counts.total), ("shared trunk", counts.trunk), *counts.tasks.items()]
    shown = parts if len(counts.tasks) > 1 else parts[:1]
    return [
        (
            name,
            "not counted" if each.flops is None else format_flops(each.flops),
            f"{each.params:,}",
            format_bytes(each.weight_bytes),
            _bytes(each.activation_bytes),
            _bytes(counts.activations_saved.get(name)),
        )
        for name, each in shown
    ]


def _bytes(value: int | None) -> str | None:
    return None if value is None else format_bytes(value)


def _ms(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _figure(figure: Figure | None) -> str | None:
    return None if figure is None else _ms(figure.value)
