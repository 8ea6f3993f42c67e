"""The base of all strategies' Optuna samplers: a design is proposed as a whole, never choice by choice."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from edgemtl.nas.evaluation import Evaluation, Problem, evaluation_of, finished, position, space_distributions
from edgemtl.spaces import Design

__all__ = ["DesignSampler", "measured_in"]


class DesignSampler(optuna.samplers.BaseSampler):
    """A sampler over a problem's space; a strategy says `next_design`.

    What it proposes follows from the seed, the position and what the study holds, never from what the process did
    before: a search that was stopped goes on as if it had not been.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        self._problem, self._seed = problem, seed

    @abstractmethod
    def next_design(self, study: Study, position: int) -> Design:
        """The design of the trial at `position` (0, 1, ...) of those that are evaluated."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Every choice of the space."""
        return space_distributions(self._problem.space)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next design, as options."""
        return dict(self.next_design(study, position(study, trial))) if search_space else {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Not reached for a space's own choices; a user's extra parameter is drawn at random."""
        return optuna.samplers.RandomSampler(self._seed).sample_independent(
            study, trial, param_name, param_distribution
        )


def measured_in(study: Study, problem: Problem) -> list[Evaluation]:
    """Every finished trial's evaluation, in order."""
    return [evaluation_of(trial, problem.space) for trial in finished(study)]
