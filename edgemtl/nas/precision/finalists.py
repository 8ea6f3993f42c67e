"""Finalists of a precision search: each uniform precision, and what keeps the floors, timed in turns; one is chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgemtl.nas.evaluation import RATIO_ALLOWED, Limit, medians_in_turns
from edgemtl.nas.precision.bench import Bench
from edgemtl.nas.precision.candidates import Agreements
from edgemtl.own import INT8, OwnPrecision
from edgemtl.results import LimitCheck
from edgemtl.units import Budget, format_quantity

__all__ = ["Candidate", "Finalist", "choose", "floor_checks", "measure", "uniform_name"]


@dataclass(frozen=True)
class Candidate:
    """A precision, what it is called, and how far each task agrees with the float net on the photos that decide."""

    name: str
    precision: OwnPrecision
    agreements: Agreements
    uniform: bool


@dataclass(frozen=True)
class Finalist:
    """A candidate with its latency in ms by scope, measured beside the others, and every limit."""

    candidate: Candidate
    latency_ms: Mapping[str, float]
    checks: tuple[LimitCheck, ...]

    @property
    def feasible(self) -> bool:
        """Whether it keeps every limit."""
        return all(check.kept for check in self.checks)

    @property
    def excess(self) -> float:
        """The sum of what broken limits are broken by, each as a fraction."""
        return sum(check.excess for check in self.checks if not check.kept)


def measure(
    bench: Bench, candidates: Sequence[Candidate], budgets: Sequence[Budget], allowed: Mapping[str, float]
) -> list[Finalist]:
    """All candidates timed in turns in one run; the first is the net in float, which percentages refer to."""
    latencies = medians_in_turns(bench, [each.precision for each in candidates])
    stored = [bench.cost(each.precision).weight_bytes for each in candidates] if budgets else [0] * len(candidates)
    return [
        Finalist(
            each,
            ms,
            (
                *_budget_checks(budgets, (ms, stored_bytes), (latencies[0], stored[0])),
                *floor_checks(each.agreements, allowed),
            ),
        )
        for each, ms, stored_bytes in zip(candidates, latencies, stored, strict=True)
    ]


def _budget_checks(
    budgets: Iterable[Budget], own: tuple[Mapping[str, float], int], base: tuple[Mapping[str, float], int]
) -> Iterable[LimitCheck]:
    for budget in budgets:
        value, largest = (each[1] if budget.counted else each[0][budget.task or ""] for each in (own, base))
        yield Limit(budget, budget.limit(largest)).check(value)


def floor_checks(agreements: Agreements, allowed: Mapping[str, float]) -> Iterable[LimitCheck]:
    """Every task's agreement against what it may lose."""
    for task, most in allowed.items():
        lost = 1 - agreements[task]
        yield LimitCheck(
            kind="floor",
            text=f"{task}={format_quantity('drop', most).replace(' ', '')}",
            quantity="drop",
            task=task,
            allowed=most,
            value=lost,
            excess=lost - most,
            kept=lost <= most,
            metric="agreement",
        )


def choose(finalists: Sequence[Finalist]) -> Finalist:
    """The fastest that keeps all limits: a mixture only where it is clearly faster than each uniform precision that
    keeps them, as smaller differences can be timing noise. The nearest to the limits where none keeps them."""
    feasible = [each for each in finalists if each.feasible]
    if not feasible:
        return min(finalists, key=lambda each: (each.excess, each.latency_ms[""]))
    uniform = [each for each in feasible if each.candidate.uniform]
    fastest = min((each.latency_ms[""] for each in uniform), default=float("inf"))
    usable = [*uniform, *(e for e in feasible if e.latency_ms[""] <= RATIO_ALLOWED * fastest)]
    return min(usable, key=lambda each: each.latency_ms[""])


def uniform_name(precision: OwnPrecision) -> str:
    """The name of a uniform precision: `fp32`, `int8`, `bf16`, `bf16+int8`."""
    engine, eight = precision.values["engine"], INT8 in precision.values.values()
    return engine if not eight else INT8 if engine == "fp32" else f"{engine}+{INT8}"
