"""The contract of strategies: how designs are proposed, and the needs of that before the search.

A strategy of another package is a function of its settings that returns a `Strategy`, in the entry-point group
`edgemtl.strategies`; the suite `edgemtl.testing.strategies` checks the contract.
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
    """The input of a strategy from its search.

    Without `supernet` the strategy trains the weights itself, in its `prepare`, from scratch or from those that are
    given. `sensitivity` is what one step down in each choice costs: where it does not lie beside the supernet it is
    measured, if that is "required", or "helpful" and less work than the search.
    """

    supernet: bool = True
    sensitivity: Literal["unused", "helpful", "required"] = "unused"


@dataclass(frozen=True)
class Preparation:
    """The input of a strategy's own stage: the space, the resolved `limits`, the weights, and the evaluator.

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
        """The input from the search."""

    def config(self, space: Space) -> Mapping[str, JsonValue]:
        """Values for the run's configuration; `UserError` for a space that this strategy cannot search."""

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
