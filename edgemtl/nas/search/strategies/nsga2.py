"""NSGA-II without predictors (Deb et al. 2002): every individual is measured. LINAS's own point of comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from edgemtl.nas.evaluation import Problem
from edgemtl.nas.search.strategies.replay import ReplayedSampler

__all__ = ["Nsga2Sampler"]


class _Ordered(NSGAIISampler):
    """Parents in the order of their trials: Optuna's come in another order to whoever selects them first.

    All trials have the choices of a space of ours: Optuna would look through every trial for what they share, which
    takes most of the time of a long search.
    """

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The choices of a finished trial, by name; none before there is one."""
        one = next(iter(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))), None)
        return {name: each for name, each in sorted(one.distributions.items()) if not each.single()} if one else {}

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
