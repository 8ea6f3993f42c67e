"""Random search: the baseline that every other strategy must beat."""

from __future__ import annotations

import random

from optuna.study import Study

from edgemtl.nas.evaluation import Problem
from edgemtl.nas.search.strategies.sampler import DesignSampler, first_affordable
from edgemtl.spaces import Design

__all__ = ["RandomDesignSampler"]


class RandomDesignSampler(DesignSampler):
    """Uniform draws of whole designs that keep every counted budget (the cheapest one if none is found)."""

    def __init__(self, problem: Problem, seed: int, batch: int) -> None:
        super().__init__(problem, seed)

    def evaluated_before(self, position: int) -> int:
        """None: draws follow from the position alone."""
        return 0

    def next_design(self, study: Study, position: int) -> Design:
        """One affordable design."""
        rng = random.Random(f"{self._seed}/{position}")
        return first_affordable(self._problem, lambda: self._problem.space.random(rng))
