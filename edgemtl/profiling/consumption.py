"""Energy of one call, by mode and by task, out of loops that were metered (`edgemtl.profiling.energy`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from edgemtl.profiling.energy import IDLE
from edgemtl.profiling.schema import Energy, EnergyFigure

__all__ = ["energy_of"]

Visit = tuple[float, float, float]
"""Seconds, joules, calls."""


def energy_of(drawn: Mapping[str, Any], modes: Mapping[str, Sequence[str]]) -> tuple[Energy | None, str]:
    """Energy of the modes that `draw_energy` metered; or None, and why not. Raises `ValueError` for other values.

    With E the joules of a loop, t its seconds, n its calls and P the mean power of idling, a call takes (E - P t) / n:
    the mean over a mode's loops. Its uncertainty is the standard error of that mean, and that of P times t / n, in
    quadrature.
    """
    if "reason" in drawn:
        return None, str(drawn["reason"])[:1000]
    visits = {str(name): [_visit(each) for each in rows] for name, rows in drawn["visits"].items()}
    if set(visits) != {IDLE, *modes}:
        raise ValueError("other loops than were asked for")
    idle = [joules / seconds for seconds, joules, _ in visits[IDLE]]
    figures = {name: _figure(visits[name], fmean(idle), _error(idle)) for name in modes}
    energy = Energy(
        rails=tuple(map(str, drawn["rails"])),
        rate_hz=drawn["rate_hz"],
        idle_w=fmean(idle),
        modes=figures,
        marginal=_marginal(figures, modes),
        visits={name: tuple(rows) for name, rows in visits.items()},
    )
    return energy, ""


def _visit(row: Sequence[float]) -> Visit:
    seconds, joules, calls = map(float, row)
    if not (seconds > 0 and calls > 0 and math.isfinite(joules)):
        raise ValueError("a loop without time, energy or calls")
    return seconds, joules, calls


def _figure(visits: Sequence[Visit], idle_w: float, idle_error_w: float) -> EnergyFigure:
    own = [1000 * (joules - idle_w * seconds) / calls for seconds, joules, calls in visits]
    of_idle = 1000 * idle_error_w * fmean([seconds / calls for seconds, _, calls in visits])
    return EnergyFigure(mj=fmean(own), uncertainty_mj=math.hypot(_error(own), of_idle))


def _error(values: Sequence[float]) -> float:
    """Standard error of a mean; that of a single value is not known and taken as the value."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else abs(values[0])


def _marginal(figures: Mapping[str, EnergyFigure], modes: Mapping[str, Sequence[str]]) -> dict[str, EnergyFigure]:
    """All tasks minus all but one, where there are several; uncertainties add in quadrature."""
    by_tasks = {frozenset(tasks): figures[name] for name, tasks in modes.items()}
    everything = max(by_tasks, key=len)
    whole = by_tasks[everything]
    return {
        task: EnergyFigure(mj=whole.mj - rest.mj, uncertainty_mj=math.hypot(whole.uncertainty_mj, rest.uncertainty_mj))
        for task in sorted(everything)
        if (rest := by_tasks.get(everything - {task})) is not None
    }
