"""Search strategies by name: each gives the Optuna sampler that proposes designs."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import cast

from optuna.samplers import BaseSampler

from edgemtl.errors import unknown_name
from edgemtl.nas.evaluation import Problem
from edgemtl.nas.search.strategies.linas import LinasSampler
from edgemtl.nas.search.strategies.mask_sampler import MaskSampler
from edgemtl.nas.search.strategies.nsga2 import Nsga2Sampler
from edgemtl.nas.search.strategies.preference_sampler import PreferenceSampler
from edgemtl.nas.search.strategies.random import RandomDesignSampler

__all__ = ["Strategy", "find_strategy", "strategy_names"]

Strategy = Callable[[Problem, int, int], BaseSampler]
"""From the problem, a seed and the size of a batch to a sampler over the space's choices."""

_BUILT_IN: dict[str, Strategy] = {
    "linas": LinasSampler,
    "masks": MaskSampler,
    "nsga2": Nsga2Sampler,
    "preference": PreferenceSampler,
    "random": RandomDesignSampler,
}
_GROUP = "edgemtl.strategies"


def strategy_names() -> list[str]:
    """Names of every strategy, built in and plugged in."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=_GROUP))})


def find_strategy(name: str) -> Strategy:
    """The strategy called `name`; raises `UserError` with the nearest names."""
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    plugged = {point.name: point for point in entry_points(group=_GROUP)}
    if name not in plugged:
        raise unknown_name("strategy", name, strategy_names())
    return cast("Strategy", plugged[name].load())
