"""NSGA-II without predictors (Deb et al. 2002): every individual is measured. LINAS's own point of comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.samplers import BaseSampler, NSGAIISampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from edgemtl.nas.evaluation import Problem
from edgemtl.nas.search.strategies.replay import ReplayedSampler

__all__ = ["Nsga2Sampler"]


class _Ordered(NSGAIISampler):
    """Parents in the order of their trials: Optuna's come in another order to whoever selects them first."""

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The parents of a generation."""
        return sorted(super().get_parent_population(study, generation), key=lambda trial: trial.number)


class Nsga2Sampler(ReplayedSampler):
    """Optuna's NSGA-II with a population of `batch`, constrained by the problem's budgets and floors."""

    def __init__(self, problem: Problem, seed: int, batch: int) -> None:
        super().__init__(problem, seed, max(2, batch))

    def seeded(self, seed: int) -> BaseSampler:
        """Optuna's, as seeded."""
        return _Ordered(population_size=self._batch, seed=seed, constraints_func=lambda trial: ())

    def attributes(self, position: int) -> Mapping[str, Any]:
        """The generation of a position."""
        return {_Ordered._get_generation_key(): position // self._batch}
