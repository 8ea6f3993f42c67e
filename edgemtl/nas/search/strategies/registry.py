"""Search strategies by name: edgemtl's own, and those that installed packages bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgemtl.errors import UserError, brief, unknown_name
from edgemtl.nas.search.strategies.linas import GENERATIONS, LinasSampler
from edgemtl.nas.search.strategies.mask_strategy import MaskStrategy
from edgemtl.nas.search.strategies.nsga2 import Nsga2Sampler
from edgemtl.nas.search.strategies.preference_sampler import PreferenceSampler
from edgemtl.nas.search.strategies.random import RandomDesignSampler
from edgemtl.nas.search.strategies.strategy import Needs, SamplerStrategy, Strategy
from edgemtl.nas.search.strategies.tpe import TpeSampler
from edgemtl.plugins import Registry

__all__ = ["STRATEGIES", "make_strategy"]


def linas(generations: int = GENERATIONS) -> Strategy:
    """Predictors, searched by NSGA-II in so many `generations` between two batches."""
    if generations < 1:
        raise UserError(f"{generations} generations given: strategy linas needs 1 or more")
    sampler = partial(LinasSampler, generations=generations)
    return SamplerStrategy(sampler, Needs(sensitivity="helpful"), {"generations": generations})


def nsga2() -> Strategy:
    """NSGA-II on measured designs."""
    return SamplerStrategy(Nsga2Sampler)


def preference() -> Strategy:
    """Widths from a preference over tasks."""
    return SamplerStrategy(PreferenceSampler, Needs(sensitivity="required"))


def random() -> Strategy:
    """Uniform draws."""
    return SamplerStrategy(RandomDesignSampler)


def tpe() -> Strategy:
    """Tree-structured Parzen estimators of several objectives."""
    return SamplerStrategy(TpeSampler)


STRATEGIES = Registry[Callable[..., Strategy]](
    "strategy",
    "edgemtl.strategies",
    {
        "linas": lambda: linas,
        "masks": lambda: MaskStrategy,
        "nsga2": lambda: nsga2,
        "preference": lambda: preference,
        "random": lambda: random,
        "tpe": lambda: tpe,
    },
    returns=Strategy,
)
"""Functions of a strategy's settings, each with a default, that return the strategy."""


def make_strategy(name: str, settings: Mapping[str, Any] | None = None) -> Strategy:
    """The strategy called `name` with these settings, which may be texts, as of a command line; defaults for the rest.

    Raises `UserError` for an unknown strategy or setting, and for a value that is of another type than its default.
    """
    defaults = {key: each.default for key, each in signature(STRATEGIES.find(name)).parameters.items()}
    values = {}
    for key, value in (settings or {}).items():
        if key not in defaults:
            raise unknown_name(f"setting of strategy {name}:", key, defaults)
        try:
            values[key] = TypeAdapter(type(defaults[key])).validate_python(value)
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise UserError(f"setting {key} of strategy {name} cannot be {brief(value)}: {reason}") from error
    return STRATEGIES.call(name, **values)
