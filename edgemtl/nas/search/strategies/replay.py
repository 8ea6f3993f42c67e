"""Optuna's own samplers, made to propose what follows from the seed and the evaluations of whole batches alone.

A sampler of Optuna's draws from one generator for a whole process and looks at whatever has ended by now: a search
that was stopped, or several workers at once, would see other designs. Here every proposal comes from a new sampler,
seeded by its position, over a study in memory that holds the batches before it.
"""

from __future__ import annotations

import random
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from edgemtl.nas.evaluation import Evaluation, Problem, space_distributions
from edgemtl.nas.search.strategies.sampler import DesignSampler, draw, first_affordable, measured_in
from edgemtl.spaces import Design

__all__ = ["ReplayedSampler"]

CONSTRAINTS = "constraints"
"""Where Optuna keeps by how much a trial breaks its constraints."""


class ReplayedSampler(DesignSampler):
    """A sampler that is `seeded` anew for every position and told the batches before it, with their violations.

    Its first batch is drawn as LINAS draws, most designs in one precision for all blocks: a precision drawn for each
    block meets hardly any net that is fast, and takes hundreds of evaluations to come to one.
    """

    def __init__(self, problem: Problem, seed: int, batch: int) -> None:
        super().__init__(problem, seed)
        self._batch = batch
        self._count, self._replayed = 0, self._empty()

    def _empty(self) -> Study:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        return optuna.create_study(directions=[StudyDirection.MINIMIZE] * len(self._problem.objective_names))

    @abstractmethod
    def seeded(self, seed: int) -> BaseSampler:
        """The sampler of Optuna's that proposes."""

    def attributes(self, position: int) -> Mapping[str, Any]:
        """System attributes that the sampler reads of the trial at `position`, beside its constraints."""
        return {}

    def evaluated_before(self, position: int) -> int:
        """The batches before."""
        return position - position % self._batch

    def next_design(self, study: Study, position: int) -> Design:
        """A draw in the first batch, from then on the sampler's proposal after the batches before."""
        if position < self._batch:
            rng = random.Random(f"{self._seed}/{position}")
            return first_affordable(self._problem, lambda: draw(self._problem, rng))
        self._tell(study, self.evaluated_before(position))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `constraints_func` works from Optuna 4 on; what replaces it came with 5
            self._replayed.sampler = self.seeded(random.Random(f"{self._seed}/{position}").randrange(2**32))
            template = create_trial(state=TrialState.RUNNING, system_attrs={**self.attributes(position)})
            number = self._replayed._storage.create_new_trial(self._replayed._study_id, template)
            trial = Trial(self._replayed, number)
            for name, distribution in space_distributions(self._problem.space).items():
                trial._suggest(name, distribution)
            self._replayed.tell(trial, state=TrialState.FAIL)  # no other proposal may follow from it
        return self._problem.space.design(trial.params)

    def _tell(self, study: Study, begun: int) -> None:
        """Let the study in memory hold the first `begun` evaluations."""
        if self._count > begun:  # a position that another worker left undone
            self._count, self._replayed = 0, self._empty()
        if self._count < begun:
            measured = measured_in(study, self._problem, begun)
            self._replayed.add_trials([self._trial(n, each) for n, each in enumerate(measured)][self._count :])
            self._count = len(measured)

    def _trial(self, position: int, evaluation: Evaluation) -> FrozenTrial:
        violation = {CONSTRAINTS: [self._problem.violation(evaluation)]}
        return create_trial(
            values=self._problem.objectives(evaluation),
            params=dict(evaluation.design),
            distributions=space_distributions(self._problem.space),
            system_attrs={**violation, **self.attributes(position)},
        )
