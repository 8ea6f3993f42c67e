"""What a strategy is: how designs are proposed, and what that needs before the search.

A strategy of another package is a function of its settings that returns a `Strategy`, in the entry-point group
`edgemtl.strategies`; `edgemtl.testing.strategies` says whether it keeps the contract.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from optuna.samplers import BaseSampler
from pydantic import JsonValue

from edgemtl.models import Supernet
from edgemtl.nas.evaluation import Evaluator, Limit, Problem
from edgemtl.progress import Report
from edgemtl.spaces import Space

__all__ = ["Needs", "Preparation", "Prepared", "SamplerStrategy", "Strategy"]


@dataclass(frozen=True)
class Needs:
    """What a search brings to its strategy.

    Without `supernet` the strategy trains the weights itself, in its `prepare`, from scratch or from those that are
    given. `sensitivity` is what one step down in each choice costs: where it does not lie beside the supernet it is
    measured, if that is "required", or "helpful" and less work than the search.
    """

    supernet: bool = True
    sensitivity: Literal["unused", "helpful", "required"] = "unused"


@dataclass(frozen=True)
class Preparation:
    """What a strategy's own stage has: the space, the resolved `limits`, the weights, and what scores designs in them.

    `folder` is the strategy's own in the run: what it keeps there it finds again when the run is resumed.
    """

    space: Space
    limits: tuple[Limit, ...]
    supernet: Supernet
    evaluator: Evaluator
    seed: int
    folder: Path
    report: Report


class Prepared(Protocol):
    """A strategy that is ready to propose."""

    def sampler(self, problem: Problem, seed: int, batch: int) -> BaseSampler:
        """An Optuna sampler over the choices of the problem's space; `batch` designs are measured between two fits.

        What it proposes follows from the problem, the seed and the finished trials of the study alone.
        """


class Strategy(Protocol):
    """How designs are proposed: what it needs, what of it a run must be resumed with, its own stage, its sampler."""

    @property
    def needs(self) -> Needs:
        """What the search brings."""

    def config(self, space: Space) -> Mapping[str, JsonValue]:
        """What goes into the run's configuration; `UserError` for a space in which this strategy can do nothing."""

    def prepare(self, preparation: Preparation) -> Prepared:
        """Do the strategy's own work before designs are proposed; from where it was stopped, when it is resumed."""


@dataclass(frozen=True)
class SamplerStrategy:
    """A strategy without a stage of its own: its sampler and the `settings` that this was made with."""

    sampler: Callable[[Problem, int, int], BaseSampler]
    needs: Needs = Needs()
    settings: Mapping[str, JsonValue] = field(default_factory=dict)

    def config(self, space: Space) -> Mapping[str, JsonValue]:
        """The settings, for any space."""
        return self.settings

    def prepare(self, preparation: Preparation) -> Prepared:
        """Nothing."""
        return self
