"""Search strategies by name: each gives the Optuna sampler that proposes designs."""

from __future__ import annotations

from collections.abc import Callable

from optuna.samplers import BaseSampler

from edgemtl.nas.evaluation import Problem
from edgemtl.nas.search.strategies.linas import LinasSampler
from edgemtl.nas.search.strategies.mask_sampler import MaskSampler
from edgemtl.nas.search.strategies.nsga2 import Nsga2Sampler
from edgemtl.nas.search.strategies.preference_sampler import PreferenceSampler
from edgemtl.nas.search.strategies.random import RandomDesignSampler
from edgemtl.plugins import Registry

__all__ = ["Strategy", "find_strategy", "strategy_names"]

Strategy = Callable[[Problem, int, int], BaseSampler]
"""From the problem, a seed and the size of a batch to a sampler over the space's choices."""

_STRATEGIES: Registry[Strategy] = Registry(
    "strategy",
    "edgemtl.strategies",
    {
        "linas": lambda: LinasSampler,
        "masks": lambda: MaskSampler,
        "nsga2": lambda: Nsga2Sampler,
        "preference": lambda: PreferenceSampler,
        "random": lambda: RandomDesignSampler,
    },
)


def strategy_names() -> list[str]:
    """Names of every strategy, built in and plugged in."""
    return _STRATEGIES.names()


def find_strategy(name: str) -> Strategy:
    """The strategy called `name`; raises `UserError` with the nearest names."""
    return _STRATEGIES.find(name)
