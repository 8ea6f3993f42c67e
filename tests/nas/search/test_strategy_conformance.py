"""The strategies of edgemtl against the contract of every strategy."""

from __future__ import annotations

from grid_world import GRID

from edgemtl.nas.search import make_strategy
from edgemtl.testing import StrategyConformance


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
