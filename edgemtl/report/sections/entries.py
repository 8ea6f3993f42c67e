"""Designs of a search's result as marks: what each is, what it is ranked by, and its figures in words."""

from __future__ import annotations

from edgemtl.report.drawing.parts import WEIGHTED, latency_text
from edgemtl.report.metrics import format_change
from edgemtl.results import Entry, Result
from edgemtl.units import format_bytes, format_flops

__all__ = ["describe", "entry_kind", "score_name", "score_of"]


def entry_kind(entry: Entry, result: Result) -> str:
    """How an entry is marked: "chosen", "baseline", "infeasible" or "front"."""
    if result.best is not None and entry.design == result.best.design:
        return "chosen"
    if entry.kind == "baseline" or entry.name == "baseline":
        return "baseline"
    return "infeasible" if entry.feasible is False else "front"


def score_of(entry: Entry, result: Result) -> float | None:
    """The score that a search ranks by: delta_m, weighted where a preference was given."""
    return entry.weighted_delta_m if result.preferred else entry.delta_m


def score_name(result: Result) -> str:
    """The name of `score_of`."""
    return WEIGHTED if result.preferred else "delta_m"


def describe(entry: Entry, result: Result) -> str:
    """An entry's name and figures on one line."""
    latency = f", {latency_text(entry.latency_ms)}" if entry.latency_ms else ""
    score = score_of(entry, result)
    delta = "" if score is None else f"{score_name(result)} {format_change(score)}, "
    name = entry.name or entry_kind(entry, result)
    return f"{name}: {delta}{format_flops(entry.flops)}, {format_bytes(entry.bytes)}{latency}"
