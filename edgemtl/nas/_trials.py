"""Designs and what was found of them, as trials of an Optuna study: the one state of a search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, Trial

from edgemtl.nas._problem import Evaluation
from edgemtl.nas._space import Design, Space

__all__ = ["design_of", "evaluation_of", "record", "space_distributions"]


def space_distributions(space: Space) -> dict[str, BaseDistribution]:
    """One categorical distribution a choice."""
    return {choice.name: CategoricalDistribution(choice.options) for choice in space.choices}


def record(trial: Trial, evaluation: Evaluation) -> None:
    """Keep an evaluation with its trial."""
    trial.set_user_attr("key", evaluation.design.key)
    trial.set_user_attr("metrics", {task: dict(scores) for task, scores in evaluation.metrics.items()})
    trial.set_user_attr("latency_ms", dict(evaluation.latency_ms))


def evaluation_of(trial: FrozenTrial, space: Space) -> Evaluation:
    """The evaluation that `record` kept."""
    attributes: Mapping[str, Any] = trial.user_attrs
    return Evaluation(design_of(trial.params, space), attributes["metrics"], attributes["latency_ms"])


def design_of(params: Mapping[str, Any], space: Space) -> Design:
    """The canonical design of a trial's parameters."""
    return space.design({choice.name: params[choice.name] for choice in space.choices})
