"""The base of all strategies' Optuna samplers: a design is proposed as a whole, never choice by choice."""

from __future__ import annotations

import itertools
import random
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from edgemtl.nas.evaluation import (
    Evaluation,
    Problem,
    evaluation_of,
    finished,
    position,
    position_of,
    space_distributions,
)
from edgemtl.spaces import Design

__all__ = ["DesignSampler", "draw", "evaluated_before", "first_affordable", "measured_in"]

_TRIES = 2000


class DesignSampler(BaseSampler):
    """A sampler over a problem's space; a strategy says `next_design`.

    What it proposes follows from the seed, the position and what the study holds, never from what the process did
    before: a search that was stopped goes on as if it had not been.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        self._problem, self._seed = problem, seed

    @abstractmethod
    def next_design(self, study: Study, position: int) -> Design:
        """The design of the trial at `position` (0, 1, ...) of those that are evaluated."""

    def evaluated_before(self, position: int) -> int:
        """How many of the first positions must be evaluated before one is proposed for `position`: all, by default.

        The fewer, the more workers can be busy at once; what is proposed may follow from those alone.
        """
        return position

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


def evaluated_before(sampler: BaseSampler, position: int) -> int:
    """How many of the first positions must be evaluated before `sampler` proposes for `position`; all of a foreign one.

    Then it proposes what it would in a search of one worker.
    """
    return sampler.evaluated_before(position) if isinstance(sampler, DesignSampler) else position


def measured_in(study: Study, problem: Problem, before: int | None = None) -> list[Evaluation]:
    """Every evaluation, in order of positions; with `before`, those of the positions below it."""
    trials = [trial for trial in finished(study) if before is None or position_of(trial) < before]
    return [evaluation_of(trial, problem.space) for trial in trials]


def draw(problem: Problem, rng: random.Random) -> Design:
    """A random design, three times out of four in one precision for all blocks: block by block would never meet it."""
    drawn = problem.space.random(rng)
    return drawn if rng.random() < 0.25 else rng.choice(problem.space.uniform(drawn))


def first_affordable(problem: Problem, drawn: Callable[[], Design]) -> Design:
    """The first of many draws that keeps every counted budget; the cheapest design if none does."""
    draws = (drawn() for _ in itertools.repeat(None, _TRIES))
    return next((design for design in draws if problem.affordable(design)), problem.cheapest())
