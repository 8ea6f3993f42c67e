"""Random search: the baseline that every other strategy must beat."""

from __future__ import annotations

import random
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from edgemtl.nas._problem import Problem
from edgemtl.nas._trials import space_distributions

__all__ = ["RandomDesignSampler"]

_TRIES = 2000


class RandomDesignSampler(optuna.samplers.BaseSampler):
    """Uniform draws of whole designs that keep every counted budget (the most frugal one where none is found)."""

    def __init__(self, problem: Problem, seed: int, batch: int) -> None:
        self._problem, self._seed = problem, seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Every choice of the space."""
        return space_distributions(self._problem.space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """One affordable design."""
        space, rng = self._problem.space, random.Random(f"{self._seed}/{trial.number}")
        draws = (space.random(rng) for _ in range(_TRIES))
        return dict(next((design for design in draws if self._problem.affordable(design)), self._problem.frugal()))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Not reached for a space's own choices; a user's extra parameter is drawn at random."""
        return optuna.samplers.RandomSampler(self._seed).sample_independent(
            study, trial, param_name, param_distribution
        )
