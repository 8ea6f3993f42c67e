"""NSGA-II without predictors (Deb et al. 2002): every individual is measured. LINAS's own point of comparison."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial

from edgemtl.nas._problem import Problem
from edgemtl.nas._trials import evaluation_of

__all__ = ["nsga2_sampler"]


def nsga2_sampler(problem: Problem, seed: int, batch: int) -> optuna.samplers.BaseSampler:
    """Optuna's NSGA-II with a population of `batch`, constrained by the problem's budgets and floors."""

    def violation(trial: FrozenTrial) -> Sequence[float]:
        return (problem.violation(evaluation_of(trial, problem.space)),)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `constraints_func` works from Optuna 4 on; what replaces it came with 5
        return optuna.samplers.NSGAIISampler(population_size=max(2, batch), seed=seed, constraints_func=violation)
