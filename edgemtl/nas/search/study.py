"""The study of a search: where its evaluations are kept, and whether they are all there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage

from edgemtl.errors import UserError, reason_of
from edgemtl.nas.evaluation import (
    Evaluation,
    Problem,
    evaluation_of,
    finished,
    hide_password,
    known_trial,
    open_storage,
    open_study,
)
from edgemtl.nas.runs import RunFolder
from edgemtl.nas.search.loop import worker_name
from edgemtl.nas.search.setup import Setup
from edgemtl.results import RESULT_FILE
from edgemtl.runs import RUN_SCHEMA, RunConfig, difference_of
from edgemtl.schema import parse_document
from edgemtl.spaces import Space

__all__ = [
    "RunStudy",
    "check_shared",
    "evaluations_in",
    "has_ended",
    "is_seeded",
    "run_study",
    "storage_failures",
    "study_of",
    "take_known",
    "wanted_in",
]

_REFINED, _CONFIG, _KNOWN = "evaluations_refined", "config", "evaluations_known"


@dataclass(frozen=True)
class RunStudy:
    """The study of the run in `out`; at the URL `storage` it has the name of that folder, and many workers share it.

    There it keeps the `config` that it was begun for; `difference` tells that of another from this one, in words that
    are empty where they are the same, with the study's name and the remedy for one that cannot be read.
    """

    out: Path
    storage: str | None
    objectives: int
    config: Mapping[str, Any]
    difference: Callable[[object, str, str], str]

    def check(self) -> None:
        """`UserError` where a shared storage cannot be used, or holds a study of that name of something else."""
        if self.storage:
            storage = self._open()
            if self._name in optuna.get_all_study_names(storage):
                study = optuna.load_study(study_name=self._name, storage=storage)
                if not _is_new(study):
                    self._check_same(study)

    def open(self) -> optuna.Study:
        """The study, new or as it was left; raises `UserError` as `check` does."""
        study = open_study(self._name, self._open(), self.objectives)
        if self.storage:
            if _is_new(study):
                study.set_user_attr(_CONFIG, dict(self.config))
            self._check_same(study)
        return study

    def is_refined(self, study: optuna.Study, evaluations: int) -> bool:
        """Whether this run's own result speaks of so many evaluations; that of another worker may."""
        return bool(study.user_attrs.get(self._mark) == evaluations)

    def mark_refined(self, study: optuna.Study, evaluations: int) -> None:
        """Keep how many evaluations this run's result speaks of."""
        study.set_user_attr(self._mark, evaluations)

    @property
    def _mark(self) -> str:
        if not self.storage:
            return _REFINED
        return f"{_REFINED}/{hashlib.sha256(worker_name(self.out).encode()).hexdigest()[:16]}"

    @property
    def _name(self) -> str:
        return self.out.absolute().name if self.storage else "search"

    def _open(self) -> BaseStorage:
        return open_storage(RunFolder(self.out).journal, self.storage)

    def _check_same(self, study: optuna.Study) -> None:
        subject, remedy = f"study {study.study_name!r} in --storage", "choose an --out with another name"
        if _CONFIG not in study.user_attrs:
            raise UserError(f"{subject} is none that edgemtl began: {remedy}")
        if difference := self.difference(study.user_attrs[_CONFIG], subject, remedy):
            raise UserError(f"{subject} is of another {difference}: ask for the same, or {remedy}")


def _is_new(study: optuna.Study) -> bool:
    """Whether nobody has said yet what a study is of: its worker is about to, or was killed in that moment."""
    return _CONFIG not in study.user_attrs and not study.get_trials(deepcopy=False)


@contextmanager
def storage_failures() -> Iterator[None]:
    """Raise `UserError` for a database that is full, or cannot be reached any more, while the block runs."""
    try:
        yield
    except StorageInternalError as error:
        reason = hide_password(reason_of(error.__cause__ or error))
        raise UserError(f"the study in --storage failed ({reason}): mend it, then go on with --resume") from error


def study_of(setup: Setup) -> optuna.Study:
    """The run's study; `UserError` where a shared one is of something else than is asked for now."""
    return run_study(setup).open()


def check_shared(setup: Setup) -> None:
    """`UserError` where a shared storage cannot be used, or holds a study of that name of something else."""
    run_study(setup).check()


def run_study(setup: Setup) -> RunStudy:
    """Where the study of a search is, and what it must be of."""

    def difference(stored: object, subject: str, remedy: str) -> str:
        return difference_of(parse_document(stored, subject, RunConfig, RUN_SCHEMA, remedy), setup.config)

    request, objectives = setup.request, len(setup.objectives) or 2
    return RunStudy(request.out, request.storage, objectives, setup.config.as_json(), difference)


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
    own = run_study(setup)
    study = own.open()
    refined = own.is_refined(study, len(evaluations_in(study, setup.space)))
    return len(finished(study)) >= wanted_in(study, setup.request.evaluations) and refined
