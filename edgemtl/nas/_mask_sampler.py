"""The strategy `masks` once distributions are learnt: which masks are measured (FBNetV5, Wu et al. 2021).

The first design keeps what each task believes in most, as far as the budgets go; then come draws of the distributions,
and, in turn with them, combinations of the masks that measured best for each task (ours: tasks do not depend on each
other's masks, so the best one for each is worth measuring together).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study

from edgemtl.errors import UserError
from edgemtl.models import Option
from edgemtl.nas._masks import keep_above
from edgemtl.nas._preference_sampler import flops_in_time
from edgemtl.nas._problem import Evaluation, Limit, Problem
from edgemtl.nas._sampler import DesignSampler, measured_in
from edgemtl.nas._space import Design, is_precision
from edgemtl.tasks import relative_change
from edgemtl.units import Budget

__all__ = ["MaskSampler"]

_HALVINGS = 16
_TEMPERATURE = 0.5
_PARENTS = 4
_TRIES = 20
Array = NDArray[np.float64]
_FLOPS = Budget("flops", 0.0, "FLOPs that keep every latency")


class MaskSampler(DesignSampler):
    """Designs whose masks follow what was learnt, in each uniform precision in turn, within every counted budget.

    A budget in ms cannot be counted: the FLOPs that keep it are bisected on what was measured, precision by precision.
    Raises `UserError` where the problem holds no beliefs.
    """

    def __init__(self, problem: Problem, seed: int, batch: int) -> None:
        if problem.masks is None:
            raise UserError("strategy masks needs the distributions that it learns: none were learnt")
        super().__init__(problem, seed)
        self._beliefs = problem.masks
        self._counted = [limit for limit in problem.limits if limit.exact]
        self._timed = [limit for limit in problem.limits if not limit.exact]
        self._rest: dict[str, Option] = {
            choice.name: choice.options[-1] for choice in problem.space.choices if not is_precision(choice)
        }
        self._precisions: list[dict[str, Option]] = [
            {c.name: variant[c.name] for c in problem.space.choices if is_precision(c)}
            for variant in problem.space.uniform(problem.space.largest())
        ]

    def next_design(self, study: Study, number: int) -> Design:
        """The next design; one that was not measured where twenty draws give one."""
        rng = np.random.default_rng([self._seed, number])
        return self._next(number, measured_in(study, self._problem), rng)

    def _next(self, number: int, measured: Sequence[Evaluation], rng: np.random.Generator) -> Design:
        turn, precision = divmod(number, len(self._precisions))
        limits = self._limits(precision, measured)
        known = {evaluation.design.key for evaluation in measured}
        for attempt in range(_TRIES):
            if turn % 2 and len(measured) >= _PARENTS:
                found = self._combined(precision, limits, measured, rng)
            else:
                steady = turn == 0 and attempt == 0
                noise = 0.0 if steady else _TEMPERATURE * rng.logistic(size=self._beliefs.logits.shape)
                found = self._drawn(precision, limits, noise)
            if found is not None and found.key not in known:
                return found
        return self._drawn(precision, limits, 0.0) or self._problem.frugal()

    def _limits(self, precision: int, measured: Sequence[Evaluation]) -> list[Limit]:
        """The counted limits, and the FLOPs that were found to keep the timed ones."""
        if not self._timed:
            return self._counted
        own = [e for e in measured if self._precision_of(e.design) == precision]
        least = float(self._problem.space.smallest().cost().flops)
        bound, _ = flops_in_time(self._timed, least, own)
        return self._counted if bound is None else [*self._counted, Limit(_FLOPS, bound)]

    def _precision_of(self, design: Design) -> int | None:
        same = [n for n, each in enumerate(self._precisions) if self._design(dict(design), n).key == design.key]
        return same[0] if same else None

    def _design(self, values: dict[str, Option], precision: int) -> Design:
        return self._problem.space.design({**self._rest, **values, **self._precisions[precision]})

    def _drawn(self, precision: int, limits: Sequence[Limit], noise: Array | float) -> Design | None:
        """The most that a draw keeps within the limits: a price for each task's own, then one for all; by bisection."""
        tasks = self._beliefs.space.tasks

        def at(prices: Array) -> Design:
            kept = keep_above(self._beliefs, prices[:, None], noise)
            return self._design(self._beliefs.space.values(kept), precision)

        def cheapest(prices: Array, raised: Array, own: Sequence[Limit]) -> Array:
            return prices + raised * _cheapest(lambda price: _within(at(prices + raised * price), own))

        prices = np.zeros(len(tasks))
        for row, task in enumerate(tasks):
            own = [limit for limit in limits if limit.budget.task == task]
            prices = cheapest(prices, np.eye(len(tasks))[row], own)
        design = at(cheapest(prices, np.ones(len(tasks)), limits))
        return design if _within(design, limits) else None

    def _combined(
        self, precision: int, limits: Sequence[Limit], measured: Sequence[Evaluation], rng: np.random.Generator
    ) -> Design | None:
        """For each task the mask of a design that served it well, if together they keep the limits."""
        problem, values = self._problem, dict[str, Option]()
        for task in problem.space.tasks:
            changes = [relative_change(task, e.metrics[task.name], problem.baseline[task.name]) for e in measured]
            best = sorted(range(len(measured)), key=changes.__getitem__, reverse=True)[:_PARENTS]
            parent = measured[best[int(rng.integers(len(best)))]].design
            values |= {c.name: parent[c.name] for c in problem.space.choices if c.task == task.name}
        design = self._design(values, precision)
        return design if _within(design, limits) else None


def _within(design: Design, limits: Sequence[Limit]) -> bool:
    return all(limit.count(design) <= limit.value for limit in limits)


def _cheapest(kept: Callable[[float], bool]) -> float:
    """The smallest price (log-odds for a mean place) at which limits are kept, by bisection; 0 where none is needed."""
    if kept(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while not kept(high) and high < 2.0**_HALVINGS:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if kept(middle) else (middle, high)
    return high
