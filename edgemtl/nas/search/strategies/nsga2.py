"""NSGA-II without predictors (Deb et al. 2002): every individual is measured. LINAS's own point of comparison."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from edgemtl.nas.evaluation import Problem, evaluation_of, position

__all__ = ["Nsga2Sampler"]


class _Ordered(NSGAIISampler):
    """Parents in the order of their trials: Optuna's come in another order to whoever selects them first."""

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """The parents of a generation."""
        return sorted(super().get_parent_population(study, generation), key=lambda trial: trial.number)


class Nsga2Sampler(BaseSampler):
    """Optuna's NSGA-II with a population of `batch`, constrained by the problem's budgets and floors.

    Every trial gets a sampler of its own, seeded by its position: Optuna's draws from one generator for a whole
    process, and a search that was stopped would draw other designs than one that was not.
    """

    def __init__(self, problem: Problem, seed: int, batch: int) -> None:
        self._problem, self._seed, self._batch = problem, seed, max(2, batch)
        self._sampler = self._seeded(0)

    def _seeded(self, position: int) -> NSGAIISampler:
        seed = random.Random(f"{self._seed}/{position}").randrange(2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `constraints_func` works from Optuna 4 on; what replaces it came with 5
            return _Ordered(population_size=self._batch, seed=seed, constraints_func=self._violation)

    def _violation(self, trial: FrozenTrial) -> Sequence[float]:
        return (self._problem.violation(evaluation_of(trial, self._problem.space)),)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Seed the sampler for this trial."""
        self._sampler = self._seeded(position(study, trial))

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As Optuna's."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As Optuna's."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As Optuna's."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Keep how far a trial is from the budgets and floors."""
        self._sampler.after_trial(study, trial, state, values)
