"""The strategies of edgemtl against the contract of every strategy, and what breaks it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from grid_world import GRID
from optuna.study import Study

from edgemtl.nas.evaluation import Problem
from edgemtl.nas.search import DesignSampler, SamplerStrategy, make_strategy
from edgemtl.spaces import Design
from edgemtl.testing import StrategyConformance
from edgemtl.testing.landscape import problem, write_space
from edgemtl.testing.world import write_data


class TestLinas(StrategyConformance):
    strategy = make_strategy("linas", {"generations": 5})


class TestMasks(StrategyConformance):
    strategy = make_strategy("masks", {"steps": 6})
    space_yaml = GRID


class TestNsga2(StrategyConformance):
    strategy = make_strategy("nsga2")
    keeps_budgets = False


class TestPreference(StrategyConformance):
    strategy = make_strategy("preference")
    draws = False


class TestRandom(StrategyConformance):
    strategy = make_strategy("random")


class TestTpe(StrategyConformance):
    strategy = make_strategy("tpe")
    keeps_budgets = False


class Forgetful(DesignSampler):
    """Draws whatever comes next in this process, budgets or not."""

    def __init__(self, task: Problem, seed: int, batch: int) -> None:
        super().__init__(task, seed)
        self._rng = random.Random(seed)

    def next_design(self, study: Study, position: int) -> Design:
        return self._problem.space.random(self._rng)


class Faulty(StrategyConformance):
    """Not collected: its tests fail."""

    strategy = SamplerStrategy(Forgetful)


def test_a_sampler_that_goes_by_its_own_past_does_not_pass(tmp_path: Path) -> None:
    write_data(tmp_path / "photos")
    write_space(tmp_path, "small")
    suite = Faulty()
    task = problem(suite.preparation(tmp_path, tmp_path / "stage").space, suite.budgets)
    prepared = suite.prepare(tmp_path, tmp_path / "stage", task)
    unbroken = suite.proposals(prepared, task)
    suite.test_the_seed_decides_what_is_proposed(prepared, task, unbroken)
    with pytest.raises(AssertionError):
        suite.test_a_search_that_was_stopped_proposes_what_it_would_have(prepared, task, unbroken)
    with pytest.raises(AssertionError):
        suite.test_what_can_be_counted_is_never_exceeded(prepared, task)
