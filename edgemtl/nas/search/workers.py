"""Whose trial is whose in a study that many processes may share, and which trials nobody works at any more."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.trial import Trial, TrialState

from edgemtl.nas.evaluation import BEAT_SECONDS, space_distributions
from edgemtl.spaces import Space

__all__ = ["begin", "busy_elsewhere", "end_abandoned", "end_silent", "working"]

_WORKER = "worker"


def end_abandoned(study: optuna.Study, worker: str | None) -> None:
    """Mark as failed what nobody works at any more, so that it is done again.

    Without a `worker` the study is this process's alone, and so every trial that runs was abandoned. Else those are:
    `worker`'s own from an earlier process, those that were not begun in full (a live worker begins again), and those
    of workers that have been silent for long.
    """
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if worker is None or trial.user_attrs.get(_WORKER) in (worker, None):
            with suppress(RuntimeError, ValueError):  # it has just been finished
                study.tell(trial.number, state=TrialState.FAIL)
    end_silent(study)


def end_silent(study: optuna.Study) -> None:
    """Mark as failed the trials of workers of a shared study that have been silent for long."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls heartbeats experimental
        fail_stale_trials(study)


def begin(study: optuna.Study, space: Space, worker: str) -> Trial:
    """A new trial with a design that the study's sampler proposes, marked as `worker`'s."""
    while True:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                trial = study.ask(space_distributions(space))
            _beat(study, trial)
            trial.set_user_attr(_WORKER, worker)
            return trial
        except UpdateFinishedTrialError:  # a worker that was just started took it for abandoned
            continue


@contextmanager
def working(study: optuna.Study, trial: Trial, beat_seconds: float = BEAT_SECONDS) -> Iterator[None]:
    """Let the other workers of a shared study see, every `beat_seconds` while the block runs, that this one lives."""
    if not hasattr(study._storage, "record_heartbeat"):
        yield
        return
    ended = Event()

    def beat() -> None:
        while not ended.wait(beat_seconds):
            with suppress(Exception):  # a database that is busy now is told the next time
                _beat(study, trial)

    thread = Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _beat(study: optuna.Study, trial: Trial) -> None:
    beat = getattr(study._storage, "record_heartbeat", None)
    if beat is not None:
        beat(trial._trial_id)


def busy_elsewhere(study: optuna.Study, worker: str) -> int:
    """How many trials other workers are at."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return sum(trial.user_attrs.get(_WORKER) not in (worker, None) for trial in running)
