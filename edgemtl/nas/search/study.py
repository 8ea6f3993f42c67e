"""The study of a search: where its evaluations are kept, and whether they are all there."""

from __future__ import annotations

from collections.abc import Sequence

import optuna

from edgemtl.errors import UserError
from edgemtl.nas.evaluation import (
    Evaluation,
    Problem,
    evaluation_of,
    finished,
    known_trial,
    open_storage,
    open_study,
)
from edgemtl.nas.runs import RunFolder
from edgemtl.nas.search.setup import Setup
from edgemtl.results import RESULT_FILE
from edgemtl.runs import RUN_SCHEMA, RunConfig, difference_of
from edgemtl.schema import parse_document
from edgemtl.spaces import Space

__all__ = [
    "check_shared",
    "evaluations_in",
    "has_ended",
    "is_refined",
    "is_seeded",
    "mark_refined",
    "study_of",
    "take_known",
    "wanted_in",
]

_REFINED, _CONFIG, _KNOWN = "evaluations_refined", "config", "evaluations_known"


def study_of(setup: Setup) -> optuna.Study:
    """The run's study; in a shared storage it has the name of the run's folder, and keeps what it was begun for.

    Raises `UserError` where that is something else than is asked for now.
    """
    request = setup.request
    name = request.out.absolute().name if request.storage else "search"
    objectives = len(setup.objectives) or 2
    study = open_study(name, open_storage(RunFolder(request.out).journal, request.storage), objectives)
    if request.storage:
        if _CONFIG not in study.user_attrs:
            study.set_user_attr(_CONFIG, setup.config.as_json())
        _check_same(study, setup.config)
    return study


def check_shared(setup: Setup) -> None:
    """`UserError` where a shared storage cannot be used, or holds a study of that name of something else."""
    request = setup.request
    if request.storage:
        storage, name = open_storage(RunFolder(request.out).journal, request.storage), request.out.absolute().name
        if name in optuna.get_all_study_names(storage):
            _check_same(optuna.load_study(study_name=name, storage=storage), setup.config)


def _check_same(study: optuna.Study, config: RunConfig) -> None:
    subject, remedy = f"study {study.study_name!r} in --storage", "choose an --out with another name"
    stored = parse_document(study.user_attrs.get(_CONFIG), subject, RunConfig, RUN_SCHEMA, remedy)
    if difference := difference_of(stored, config):
        raise UserError(f"{subject} is of another {difference}: ask for the same, or {remedy}")


def evaluations_in(study: optuna.Study, space: Space) -> list[Evaluation]:
    """Every evaluated design once, in the order of evaluation; `UserError` where a trial is damaged."""
    evaluations = [evaluation_of(trial, space) for trial in finished(study)]
    return list({each.design.key: each for each in evaluations}.values())


def take_known(study: optuna.Study, problem: Problem, known: Sequence[Evaluation]) -> None:
    """Give a study evaluations that are known already, each design once, at the first positions, unless it has all.

    Where a kill cut that short, those designs follow that it lacks: what is measured anew may come in another order, so
    that positions do not tell which ones.
    """
    if is_seeded(study):
        return
    there = [str(trial.user_attrs["key"]) for trial in finished(study)]
    missing = {each.design.key: each for each in known if each.design.key not in there}
    for position, evaluation in enumerate(missing.values(), len(there)):
        study.add_trial(known_trial(evaluation, position, problem.objectives(evaluation)))
    study.set_user_attr(_KNOWN, len(there) + len(missing))


def is_seeded(study: optuna.Study) -> bool:
    """Whether a study was given all evaluations that were known before it."""
    return _KNOWN in study.user_attrs


def wanted_in(study: optuna.Study, evaluations: int) -> int:
    """How many evaluations the study is to hold: those that are asked for, besides those that were known."""
    return int(study.user_attrs.get(_KNOWN, 0)) + evaluations


def has_ended(setup: Setup) -> bool:
    """Whether the existing result covers every requested evaluation."""
    if not (setup.request.out / RESULT_FILE).is_file():
        return False
    if setup.request.origin and not setup.request.evaluations:
        return True
    study = study_of(setup)
    refined = is_refined(study, len(evaluations_in(study, setup.space)))
    return len(finished(study)) >= wanted_in(study, setup.request.evaluations) and refined


def is_refined(study: optuna.Study, evaluations: int) -> bool:
    """Whether the result speaks of so many evaluations."""
    return study.user_attrs.get(_REFINED) == evaluations


def mark_refined(study: optuna.Study, evaluations: int) -> None:
    """Keep how many evaluations the result speaks of."""
    study.set_user_attr(_REFINED, evaluations)
