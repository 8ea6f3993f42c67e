"""Finalists of a search: each uniform precision, and what keeps the floors, timed in turns; one is chosen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from edgemtl.nas.evaluation import RATIO_ALLOWED, Limit, medians_in_turns, near_best
from edgemtl.nas.precision.bench import Bench, Cost
from edgemtl.nas.precision.floors import Floors, Metrics
from edgemtl.nas.precision.setup import Setup
from edgemtl.own import FLOAT_ENGINE, INT4, INT8, OwnPrecision
from edgemtl.profiling import Measurer, TimedCall
from edgemtl.progress import Progress, Report
from edgemtl.results import LimitCheck
from edgemtl.runtime import Session
from edgemtl.units import Budget

__all__ = [
    "Base",
    "Candidate",
    "Finalist",
    "acceptable",
    "budget_checks",
    "choose",
    "measure",
    "timed_finalists",
    "uniform_name",
]


@dataclass(frozen=True)
class Candidate:
    """A net in a precision, what it is called, and each task's scores on images that decide.

    `uniform` is the net as it was given in one precision.
    """

    name: str
    setup: Setup
    precision: OwnPrecision
    metrics: Metrics
    uniform: bool


@dataclass(frozen=True)
class Finalist:
    """A candidate with its latency in ms by scope, measured beside the others, and every limit.

    `delta_m` is that of its metrics, weighted by the preference; None where no task is preferred.
    """

    candidate: Candidate
    latency_ms: Mapping[str, float]
    checks: tuple[LimitCheck, ...]
    delta_m: float | None = None

    @property
    def feasible(self) -> bool:
        """Whether it keeps every limit."""
        return all(check.kept for check in self.checks)

    @property
    def excess(self) -> float:
        """The sum of what broken limits are broken by, each as a fraction."""
        return sum(check.excess for check in self.checks if not check.kept)


@dataclass(frozen=True)
class Base:
    """Amounts of the net as it was given, in float, which percentages of budgets refer to."""

    latency_ms: Mapping[str, float]
    cost: Cost


@dataclass(frozen=True)
class _Engines:
    """An `EngineTimer` of candidates, which may be of several nets."""

    scopes: Sequence[str]
    measurer: Measurer
    bench: Bench

    def built(self, candidate: Candidate) -> AbstractContextManager[Path]:
        """See `EngineTimer`."""
        return candidate.setup.bench.built(candidate.precision)

    def opened(self, folder: Path) -> AbstractContextManager[Session]:
        """See `EngineTimer`."""
        return self.bench.opened(folder)

    def calls(self, session: Session) -> dict[str, TimedCall]:
        """See `EngineTimer`."""
        return self.bench.calls(session)


def measure(
    candidates: Sequence[Candidate], budgets: Sequence[Budget], floors: Floors, base: Base | None = None
) -> list[Finalist]:
    """All candidates timed in turns in one run; the first is the net in float, which is the `base` without one."""
    bench = candidates[0].setup.bench
    latencies = medians_in_turns(_Engines(bench.scopes, bench.measurer, bench), candidates)
    costs = [each.setup.bench.cost(each.precision) for each in candidates]
    reference = base or Base(latencies[0], costs[0])
    return [
        Finalist(
            each,
            ms,
            (*budget_checks(budgets, ms, cost, reference), *floors.checks(each.metrics)),
            floors.weighted_delta_m(each.metrics),
        )
        for each, ms, cost in zip(candidates, latencies, costs, strict=True)
    ]


def timed_finalists(candidates: Sequence[Candidate], setup: Setup, report: Report) -> list[Finalist]:
    """The candidates, the net in float first, timed in turns."""
    report(Progress("finalists", 0, 1, f"{len(candidates)} timed in turns"))
    finalists = measure(candidates, setup.budgets, setup.floors)
    report(Progress("finalists", 1, 1))
    return finalists


def budget_checks(
    budgets: Iterable[Budget], latency_ms: Mapping[str, float], cost: Cost, base: Base
) -> Iterator[LimitCheck]:
    """Every budget against what a net takes."""
    for budget in budgets:
        value, largest = (
            counts.amount(budget) if budget.counted else ms[budget.task or ""]
            for ms, counts in ((latency_ms, cost), (base.latency_ms, base.cost))
        )
        yield Limit(budget, budget.limit(largest)).check(value)


def acceptable(finalists: Sequence[Finalist]) -> list[Finalist]:
    """Those that keep all limits; where tasks are preferred, those of them within half a point of the best delta_m."""
    return near_best([each for each in finalists if each.feasible], lambda each: each.delta_m or 0.0)


def choose(finalists: Sequence[Finalist]) -> Finalist:
    """The fastest that is acceptable: a mixture only where it is clearly faster than each uniform precision that is,
    as smaller differences can be timing noise. The nearest to the limits where none keeps them."""
    feasible = acceptable(finalists)
    if not feasible:
        return min(finalists, key=lambda each: (each.excess, each.latency_ms[""]))
    uniform = [each for each in feasible if each.candidate.uniform]
    fastest = min((each.latency_ms[""] for each in uniform), default=float("inf"))
    usable = [*uniform, *(e for e in feasible if e.latency_ms[""] <= RATIO_ALLOWED * fastest)]
    return min(usable, key=lambda each: each.latency_ms[""])


def uniform_name(precision: OwnPrecision) -> str:
    """The name of a uniform precision: `fp32`, `int8`, `int4`, `bf16`, `bf16+int8`."""
    engine, kinds = precision.values["engine"], precision.values.values()
    rounded = next((kind for kind in (INT8, INT4) if kind in kinds), "")
    return "+".join(part for part in ("" if rounded and engine == FLOAT_ENGINE else engine, rounded) if part)
