"""Designs and what was found of them, as trials of an Optuna study: the one state of a search."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from edgemtl.errors import UserError
from edgemtl.files.seals import check_seal, sealed
from edgemtl.nas.evaluation.problem import Evaluation
from edgemtl.nas.evaluation.stopping import Stopped
from edgemtl.spaces import Design, Space

__all__ = [
    "POSITION",
    "design_of",
    "evaluation_of",
    "finished",
    "free_position",
    "known_trial",
    "position",
    "position_of",
    "record",
    "seen_keys",
    "space_distributions",
]

POSITION = "position"
_RECORDED = ("key", "metrics", "latency_ms", "latency_error", "stopped", "sha256")
_ALL = (TrialState.COMPLETE, TrialState.RUNNING)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that were evaluated, in order of their positions; of two at one position the first."""
    by_position: dict[int, FrozenTrial] = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        by_position.setdefault(position_of(trial), trial)
    return [by_position[position] for position in sorted(by_position)]


def position_of(trial: FrozenTrial) -> int:
    """The position that a trial keeps; its number where nothing gave it one."""
    return int(trial.user_attrs.get(POSITION, trial.number))


def position(study: optuna.Study, trial: FrozenTrial) -> int:
    """Which one in a row a trial is (0, 1, ...), decided at the first call and kept with it.

    It is the lowest that no trial has which was evaluated or still runs, so that what a killed worker left undone is
    taken over as it was. Of workers that ask at one moment each leaves as many to the others as have lower numbers;
    where two got one position all the same, both would evaluate the same design, and `finished` takes one.
    """
    if POSITION in trial.user_attrs:
        return position_of(trial)
    others = [other for other in study.get_trials(deepcopy=False, states=_ALL) if other.number != trial.number]
    asking = sum(POSITION not in other.user_attrs and other.number < trial.number for other in others)
    lowest = next(itertools.islice(_free(others), asking, None))
    study._storage.set_trial_user_attr(trial._trial_id, POSITION, lowest)
    return lowest


def free_position(study: optuna.Study) -> int:
    """The lowest position that no trial has which was evaluated or still runs."""
    return next(_free(study.get_trials(deepcopy=False, states=_ALL)))


def _free(trials: Iterable[FrozenTrial]) -> Iterator[int]:
    taken = {position_of(trial) for trial in trials if POSITION in trial.user_attrs or trial.state.is_finished()}
    return (lowest for lowest in itertools.count() if lowest not in taken)


def seen_keys(study: optuna.Study, space: Space) -> set[str]:
    """Keys of the designs that were evaluated, and of those that another worker is at.

    A trial with only some parameters written does not count: its worker is still writing them, or was killed.
    """
    names = {choice.name for choice in space.choices}
    trials = study.get_trials(deepcopy=False, states=_ALL)
    return {design_of(trial.params, space).key for trial in trials if names <= trial.params.keys()}


def space_distributions(space: Space) -> dict[str, BaseDistribution]:
    """One categorical distribution a choice."""
    return {choice.name: CategoricalDistribution(choice.options) for choice in space.choices}


def record(trial: Trial, evaluation: Evaluation) -> None:
    """Keep an evaluation with its trial, and the hash of it."""
    for name, value in _content(evaluation).items():
        trial.set_user_attr(name, value)


def known_trial(evaluation: Evaluation, position: int, values: Sequence[float]) -> FrozenTrial:
    """A finished trial of an evaluation that is known from elsewhere."""
    return create_trial(
        values=values,
        params=dict(evaluation.design),
        distributions=space_distributions(evaluation.design.space),
        user_attrs={POSITION: position, **_content(evaluation)},
    )


def _content(evaluation: Evaluation) -> dict[str, Any]:
    metrics = {task: dict(scores) for task, scores in evaluation.metrics.items()}
    stopped = asdict(evaluation.stopped) if evaluation.stopped else None
    content = {
        "key": evaluation.design.key,
        "metrics": metrics,
        "latency_ms": dict(evaluation.latency_ms),
        "latency_error": dict(evaluation.latency_error),
        "stopped": stopped,
    }
    return sealed(content)


def evaluation_of(trial: FrozenTrial, space: Space) -> Evaluation:
    """The evaluation that `record` kept; raises `UserError` where it or the trial's design was changed since."""
    content: Mapping[str, Any] = {name: trial.user_attrs.get(name) for name in _RECORDED}
    try:
        check_seal(content, Path("study"), "evaluation in the")
        design = design_of(trial.params, space)
    except (KeyError, UserError) as error:
        raise UserError(
            f"trial {trial.number} of the study is damaged ({error}): begin again with another --out"
        ) from error
    if design.key != content["key"]:
        raise UserError(f"trial {trial.number} of the study names another design than was evaluated: begin again")
    stopped = Stopped(**content["stopped"]) if content["stopped"] else None
    return Evaluation(design, content["metrics"], content["latency_ms"], stopped, content["latency_error"])


def design_of(params: Mapping[str, Any], space: Space) -> Design:
    """The canonical design of a trial's parameters."""
    return space.design({choice.name: params[choice.name] for choice in space.choices})
