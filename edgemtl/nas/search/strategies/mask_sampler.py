"""The strategy `masks` once distributions are learnt: which masks are measured (FBNetV5, Wu et al. 2021).

The first designs keep the likeliest positions, as far as the budgets go: all tasks alike, so that their paths are
shared and wide, then alike for a smaller and smaller first part, down to each task its own. Then come draws of the
distributions, and, in turn with them, combinations of the masks that measured best for each task. Both are ours: what
paths share costs once, and tasks do not depend on each other's masks, so the best one for each is worth measuring
together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from optuna.study import Study

from edgemtl.nas.evaluation import Evaluation, Limit, Problem, seen_keys
from edgemtl.nas.search.strategies.masks import MaskDistribution, keep_above, share_prefix
from edgemtl.nas.search.strategies.preference_sampler import flops_in_time
from edgemtl.nas.search.strategies.sampler import DesignSampler, measured_in
from edgemtl.spaces import Design, Option, is_precision
from edgemtl.tasks import relative_change
from edgemtl.units import Budget

__all__ = ["AGREEMENTS", "MaskSampler"]

_HALVINGS = 16
_MOST = 2.0**10
_TEMPERATURE = 0.5
_PARENTS = 4
_TRIES = 20
AGREEMENTS = (1.0, 0.75, 0.5, 0.25, 0.0)
"""Shares of the positions, from the image on, that tasks keep alike."""
Array = NDArray[np.float64]
_FLOPS = Budget("flops", 0.0, "FLOPs that keep every latency")


class MaskSampler(DesignSampler):
    """Designs whose masks follow what was learnt, in each uniform precision in turn, within every counted budget.

    A budget in ms cannot be counted: the FLOPs that keep it are bisected on what was measured, precision by precision.
    """

    def __init__(self, problem: Problem, seed: int, batch: int, distribution: MaskDistribution) -> None:
        super().__init__(problem, seed)
        self._distribution = distribution
        self._counted = [limit for limit in problem.limits if limit.exact]
        self._timed = [limit for limit in problem.limits if not limit.exact]
        self._rest: dict[str, Option] = {
            choice.name: choice.options[-1] for choice in problem.space.choices if not is_precision(choice)
        }
        self._precisions: list[dict[str, Option]] = [
            {c.name: variant[c.name] for c in problem.space.choices if is_precision(c)}
            for variant in problem.space.uniform(problem.space.largest())
        ]

    def next_design(self, study: Study, position: int) -> Design:
        """The next design; one that was not measured where twenty draws give one."""
        rng, measured = np.random.default_rng([self._seed, position]), measured_in(study, self._problem)
        turn, precision = divmod(position, len(self._precisions))
        limits = self._limits(precision, measured)
        seen = seen_keys(study, self._problem.space)
        for attempt in range(_TRIES):
            if turn < len(AGREEMENTS) and attempt == 0:
                design = self._drawn(precision, limits, share_prefix(self._distribution, AGREEMENTS[turn]))
            elif turn % 2 and len(measured) >= _PARENTS:
                design = self._combined(precision, limits, measured, rng)
            else:
                noise = _TEMPERATURE * rng.logistic(size=self._distribution.logits.shape)
                noisy = replace(self._distribution, logits=self._distribution.logits + noise)
                design = self._drawn(precision, limits, share_prefix(noisy, float(rng.choice(AGREEMENTS))))
            if design is not None and design.key not in seen:
                return design
        return self._drawn(precision, limits, self._distribution) or self._problem.cheapest()

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

    def _drawn(self, precision: int, limits: Sequence[Limit], distribution: MaskDistribution) -> Design | None:
        """The most of `distribution` within the limits: a price for each task's own, then one for all; by bisection."""
        tasks = distribution.space.tasks

        def at(prices: Array) -> Design:
            return self._design(distribution.space.values(keep_above(distribution, prices[:, None])), precision)

        def cheapest(prices: Array, direction: Array, own: Sequence[Limit], least: float = 0.0) -> Array:
            return prices + direction * _cheapest(lambda price: _within(at(prices + direction * price), own), least)

        prices = np.zeros(len(tasks))
        for row, task in enumerate(tasks):
            own = [limit for limit in limits if limit.budget.task == task]
            prices = cheapest(prices, np.eye(len(tasks))[row], own)
        design = at(cheapest(prices, np.ones(len(tasks)), limits, -_MOST if limits else 0.0))
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


def _cheapest(is_kept: Callable[[float], bool], least: float) -> float:
    """The smallest price (log-odds for a mean position), `least` or more, at which limits are kept; by bisection.

    A price below 0 fills the rest of a budget with the positions of the least negative log-odds.
    """
    if is_kept(least):
        return least
    low, high = (0.0, 1.0) if not is_kept(0.0) else (least, 0.0)
    while not is_kept(high) and high < _MOST:
        low, high = high, 2 * high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if is_kept(middle) else (middle, high)
    return high
