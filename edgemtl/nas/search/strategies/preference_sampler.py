"""The strategy `preference`: widths from a table, and a few of their neighbours, to be measured like any proposal.

It draws nothing: what it proposes follows from the preference, the limits and the supernet's sensitivity map.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

from optuna.study import Study

from edgemtl.errors import UserError
from edgemtl.nas.evaluation import Evaluation, Limit, Problem, seen_keys
from edgemtl.nas.search.strategies.preference import make_table, ranked_for
from edgemtl.nas.search.strategies.sampler import DesignSampler, measured_in
from edgemtl.spaces import Design, is_precision
from edgemtl.units import Budget

__all__ = ["PreferenceSampler", "flops_in_time"]

_PROPOSED = 4
_CLOSE = 0.97
_FLOPS = Budget("flops", 0.0, "FLOPs that keep every latency")


class PreferenceSampler(DesignSampler):
    """Up to four designs in each uniform precision in turn: the answer to the preference, then its neighbours.

    Latency cannot be counted: where a budget is in ms, the FLOPs that keep it are first bisected, precision by
    precision, on what was measured. After the last proposal the first one is repeated, which is measured no more.
    Raises `UserError` where the problem has no sensitivity map.
    """

    def __init__(self, problem: Problem, seed: int, batch: int) -> None:
        if problem.sensitivity is None:
            raise UserError("strategy preference needs the sensitivity map of the supernet: none was measured")
        super().__init__(problem, seed)
        self._table = make_table(problem.space, problem.sensitivity)
        self._counted = tuple(limit for limit in problem.limits if limit.exact)
        self._timed = tuple(limit for limit in problem.limits if not limit.exact)
        self._precisions = [
            {c.name: variant[c.name] for c in problem.space.choices if is_precision(c)}
            for variant in problem.space.uniform(problem.space.largest())
        ]

    def next_design(self, study: Study, position: int) -> Design:
        """The next design that was not measured, and that no other worker is at."""
        evaluations, seen = measured_in(study, self._problem), seen_keys(study, self._problem.space)
        count = len(self._precisions)
        turn = len(seen) % count
        lists = [self._proposals(number % count, evaluations) for number in range(turn, turn + count)]
        proposed = [design for designs in lists for design in designs]
        fresh = [design for design in proposed if design.key not in seen]
        return next(iter([*fresh, *proposed, self._problem.cheapest()]))

    def _proposals(self, number: int, evaluations: Sequence[Evaluation]) -> list[Design]:
        """The designs of one precision, best first: all of them once the latency's FLOPs are known, else the next."""
        precision = self._precisions[number]
        own = [e for e in evaluations if _has(e.design, precision)]
        bound, proven = flops_in_time(self._timed, float(self._problem.space.smallest().cost().flops), own)
        limits = self._counted if bound is None else (*self._counted, Limit(_FLOPS, bound))
        try:
            problem = self._problem
            ranked = ranked_for(self._table, problem.preference, limits, problem.requirements.drops, precision)
        except UserError:  # this precision cannot keep the limits
            return []
        measured = ranked[0].key in {evaluation.design.key for evaluation in own}
        return ranked[:_PROPOSED] if proven or measured else ranked[:1]


def flops_in_time(
    timed: Sequence[Limit], least_flops: float, evaluations: Sequence[Evaluation]
) -> tuple[float | None, bool]:
    """FLOPs to allow next so that every timed limit is kept (none: no bound), and whether that is known well enough.

    `evaluations` are of one precision, `least_flops` the smallest design's: between what was in time and what was not
    the geometric mean is tried.
    """
    within: list[float] = []
    over: list[float] = []
    for evaluation in evaluations:
        slow = any(limit.measured(evaluation) > limit.value for limit in timed)
        (over if slow else within).append(float(evaluation.design.cost().flops))
    if not over:
        return None, bool(within) or not timed
    low = max((flops for flops in within if flops < min(over)), default=least_flops)
    if low / min(over) >= _CLOSE:
        return low, True
    return sqrt(low * min(over)), False


def _has(design: Design, precision: dict[str, Any]) -> bool:
    """Whether a design's blocks all have the precision that they have in `precision`."""
    recast = design.space.design({**design, **precision})
    return recast.key == design.key
