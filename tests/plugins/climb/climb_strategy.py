"""A strategy in one file: random designs are probed, and the best one is climbed from, choice by choice."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from optuna.study import Study
from pydantic import JsonValue

from edgemtl.errors import UserError
from edgemtl.files.disk import read_json, write_json
from edgemtl.nas.evaluation import Problem, seen_keys
from edgemtl.nas.search import DesignSampler, Needs, Preparation, Prepared, SamplerStrategy, measured_in
from edgemtl.progress import Progress
from edgemtl.spaces import Design, Space

TRIES = 200


@dataclass(frozen=True)
class Climb:
    """Hill climbing from the best of so many `probes`."""

    probes: int = 3
    needs: ClassVar[Needs] = Needs()

    def __post_init__(self) -> None:
        if self.probes < 1:
            raise UserError(f"{self.probes} probes given: strategy climb needs 1 or more")

    def config(self, space: Space) -> Mapping[str, JsonValue]:
        """How many probes."""
        return {"probes": self.probes}

    def prepare(self, preparation: Preparation) -> Prepared:
        """Score the probes that were not scored before the run was stopped."""
        file, evaluator = preparation.folder / "probes.json", preparation.evaluator
        scores: dict[str, float] = read_json(file, "probes") if file.is_file() else {}
        designs = [
            preparation.space.random(random.Random(f"{preparation.seed}/{number}")) for number in range(self.probes)
        ]
        for number, design in enumerate(designs):
            preparation.report(Progress("climb", number, self.probes, design.key))
            if design.key not in scores:
                metrics = evaluator.simulated(evaluator.candidate(design))
                scores[design.key] = sum(
                    metrics[task.name][task.metric.name] * (1 if task.metric.higher_is_better else -1)
                    for task in design.space.tasks
                )
                write_json(file, scores)
        preparation.report(Progress("climb", self.probes, self.probes))
        best = max(designs, key=lambda design: scores[design.key])
        return SamplerStrategy(partial(ClimbSampler, start=best))


class ClimbSampler(DesignSampler):
    """Proposes neighbours, one choice away, of the best design so far."""

    def __init__(self, problem: Problem, seed: int, batch: int, start: Design) -> None:
        super().__init__(problem, seed)
        self._start = start

    def next_design(self, study: Study, position: int) -> Design:
        """The start, then a neighbour that was not measured."""
        problem, seen = self._problem, seen_keys(study, self._problem.space)
        rng = random.Random(f"{self._seed}/{position}")
        feasible = [each for each in measured_in(study, problem) if problem.feasible(each)]
        here = max(feasible, key=lambda each: problem.delta_m(each.metrics)).design if feasible else self._start
        if here.key not in seen and problem.affordable(here):
            return here
        for _ in range(TRIES):
            choice = rng.choice(problem.space.choices)
            neighbour = problem.space.design({**here, choice.name: rng.choice(choice.options)})
            if neighbour.key not in seen and problem.affordable(neighbour):
                return neighbour
        return problem.cheapest()
