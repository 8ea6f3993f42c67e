"""Random search: the baseline that every other strategy must beat."""

from __future__ import annotations

import random

from optuna.study import Study

from edgemtl.nas.evaluation import Problem
from edgemtl.nas.search.strategies.sampler import DesignSampler
from edgemtl.spaces import Design

__all__ = ["RandomDesignSampler"]

_TRIES = 2000


class RandomDesignSampler(DesignSampler):
    """Uniform draws of whole designs that keep every counted budget (the cheapest one if none is found)."""

    def __init__(self, problem: Problem, seed: int, batch: int) -> None:
        super().__init__(problem, seed)

    def evaluated_before(self, position: int) -> int:
        """None: draws follow from the position alone."""
        return 0

    def next_design(self, study: Study, position: int) -> Design:
        """One affordable design."""
        space, rng = self._problem.space, random.Random(f"{self._seed}/{position}")
        draws = (space.random(rng) for _ in range(_TRIES))
        return next((design for design in draws if self._problem.affordable(design)), self._problem.cheapest())
