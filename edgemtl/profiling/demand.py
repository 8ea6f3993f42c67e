"""The share of an engine's time that a schedule needs, measured before it starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgemtl.profiling.timing import compare
from edgemtl.runtime import Schedule, Session

__all__ = ["Demand", "measure_demand"]

LONGEST_S = 60.0


@dataclass(frozen=True)
class Demand:
    """`call_ms` is the median time of each call that `schedule` makes, by its tasks; `utilisation` their share of time.

    No order of calls keeps a schedule whose utilisation is above 1 (Liu and Layland 1973). One below it may still miss
    deadlines: calls are not cut short, and an engine that slept is slower than one that is called without a pause.
    """

    schedule: Schedule
    call_ms: Mapping[tuple[str, ...], float]
    utilisation: float

    def keepable(self, share: float = 1.0) -> Schedule:
        """All rates scaled by one factor (three digits, rounded down) so that the utilisation is `share`."""
        return self.schedule.times(_rounded_down(share / self.utilisation))

    def objection(self) -> str | None:
        """One line saying why the schedule cannot be kept and which one could; empty if it can."""
        if self.utilisation > 1:
            return (
                f"the schedule asks for {self.utilisation:.0%} of this engine's time and cannot be kept: "
                f"at most {self.keepable()} could be"
            )
        for tasks, spent_ms in self.call_ms.items():
            fastest = max(tasks, key=lambda task: self.schedule.rates_hz[task])
            period_ms = 1000 * float(self.schedule.period(fastest))
            if spent_ms > period_ms:
                return (
                    f"a call of {'+'.join(tasks)} takes {spent_ms:.3g} ms, longer than the {period_ms:.3g} ms between "
                    f"jobs of {fastest}, which is late whenever they meet: lower its rate"
                )
        return None


def measure_demand(session: Session, frame: NDArray[np.float32], schedule: Schedule, seconds: float) -> Demand:
    """Time every call that a schedule makes in `seconds` (its first minute at most), in turns, 20 samples each.

    `frame` is a normalised image (1, 3, H, W). This also warms up the engine.
    """
    seconds = min(seconds, LONGEST_S)
    counts = schedule.modes(seconds)
    calls = {"+".join(tasks): partial(session.run, frame, tasks) for tasks in counts}
    samples = compare(calls, 2, burst=5, settle=1, warmup=3)
    call_ms = {tasks: samples["+".join(tasks)].median_ms for tasks in counts}
    busy_ms = math.fsum(count * call_ms[tasks] for tasks, count in counts.items())
    return Demand(schedule, call_ms, busy_ms / 1000 / seconds)


def _rounded_down(value: float) -> float:
    digits = 2 - math.floor(math.log10(value))
    return float(f"{math.floor(value * 10**digits)}e{-digits}")
