"""Designs and what was found of them, as trials of an Optuna study: the one state of a search."""

from __future__ import annotations

import fcntl
import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from edgemtl.errors import UserError, one_line
from edgemtl.files.disk import open_regular, read_bytes
from edgemtl.files.seals import check_seal, sealed
from edgemtl.nas.evaluation.problem import Evaluation
from edgemtl.nas.evaluation.stopping import Stopped
from edgemtl.spaces import Design, Space

__all__ = [
    "BEAT_SECONDS",
    "design_of",
    "evaluation_of",
    "finished",
    "open_study",
    "position",
    "record",
    "seen_keys",
    "space_distributions",
]

JOURNAL_LIMIT_BYTES = 2**28
_RECORDED = ("key", "metrics", "latency_ms", "latency_error", "stopped", "sha256")
BEAT_SECONDS, GRACE_SECONDS = 10, 60
"""Heartbeat interval of a worker of a shared study, and the silence after which others take over its trial."""
_OPENING_SECONDS = 60.0
_ALL = (TrialState.COMPLETE, TrialState.RUNNING)


def open_study(name: str, journal: Path, url: str | None, grace_seconds: int = GRACE_SECONDS) -> optuna.Study:
    """The study called `name`, new or as it was left: in an Optuna storage where a URL is given, else in a journal.

    Of a shared study's workers, one that is silent for longer than `grace_seconds` is taken for dead.
    Raises `UserError` where the storage cannot be reached or the journal is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _open_shared(name, url, grace_seconds) if url else _open(name, _open_journal(journal))
    except (OSError, UserError):
        raise
    except Exception as error:  # every storage and database driver has its own
        where, remedy = ("--storage", "check its URL") if url else (str(journal), "begin again with another --out")
        reason = one_line(error)
        raise UserError(f"the study in {where} cannot be opened ({reason}): {remedy}") from error


def _open(name: str, storage: BaseStorage) -> optuna.Study:
    return optuna.create_study(
        study_name=name, storage=storage, directions=["minimize", "minimize"], load_if_exists=True
    )


def _open_shared(name: str, url: str, grace_seconds: int) -> optuna.Study:
    """A study in a database; where another worker is making the tables at this moment, those are waited for."""
    deadline, pause = time.monotonic() + _OPENING_SECONDS, 0.05
    patient: dict[str, Any] = {"connect_args": {"timeout": _OPENING_SECONDS}} if url.startswith("sqlite") else {}
    while True:
        try:
            return _open(name, RDBStorage(url, patient, heartbeat_interval=BEAT_SECONDS, grace_period=grace_seconds))
        except Exception as error:
            if time.monotonic() > deadline or not _made_meanwhile(error):
                raise
        time.sleep(pause)
        pause = min(1.0, 2 * pause)


def _made_meanwhile(error: BaseException) -> bool:
    """Whether a database refused because another connection makes or has just made the same."""
    message = f"{error} {error.__cause__ or ''} {error.__context__ or ''}".lower()
    return any(words in message for words in ("already exists", "is locked", "unique", "duplicate", "no such table"))


def _open_journal(journal: Path) -> JournalStorage:
    journal.parent.mkdir(parents=True, exist_ok=True)
    if journal.exists() or journal.is_symlink():
        open_regular(journal, "journal").close()  # to lock a pipe would wait for its other end
    lock = _KernelLock(journal)
    lock.acquire()
    try:
        content = read_bytes(journal, "journal", JOURNAL_LIMIT_BYTES)
        os.truncate(journal, content.rfind(b"\n") + 1)  # a full disk may have cut the last line short
    finally:
        lock.release()
    return JournalStorage(JournalFileBackend(str(journal), lock))


class _KernelLock(JournalFileOpenLock):
    """A lock that ends with its process: a killed search does not lock out the one that resumes it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def acquire(self) -> bool:
        self._file = self._path.open("ab")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        if self._file is not None:
            self._file.close()


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that were evaluated, in order."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def position(study: optuna.Study, trial: FrozenTrial) -> int:
    """Which one in a row a trial is, without those that failed or were abandoned: a run that was stopped counts on."""
    return sum(other.number < trial.number for other in study.get_trials(deepcopy=False, states=_ALL))


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
    metrics = {task: dict(scores) for task, scores in evaluation.metrics.items()}
    stopped = asdict(evaluation.stopped) if evaluation.stopped else None
    content = {
        "key": evaluation.design.key,
        "metrics": metrics,
        "latency_ms": dict(evaluation.latency_ms),
        "latency_error": dict(evaluation.latency_error),
        "stopped": stopped,
    }
    for name, value in sealed(content).items():
        trial.set_user_attr(name, value)


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
