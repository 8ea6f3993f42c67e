"""Whose trial is whose in a study that many processes may share, and which trials nobody works at any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from edgemtl.nas.evaluation import position, space_distributions
from edgemtl.spaces import Space

__all__ = ["WORKER", "SilenceWatch", "begin", "end_abandoned", "working"]

BEAT_SECONDS, GRACE_SECONDS = 10.0, 60.0
"""Between two signs of life of a worker of a shared study, and the silence after which others take over its trial."""
WORKER, _BEAT = "worker", "beat"


def end_abandoned(study: optuna.Study, worker: str | None) -> None:
    """Mark as failed what nobody works at any more, so that it is done again.

    Without a `worker` the study is this process's alone, and so every trial that runs was abandoned; else those are
    `worker`'s own and its helpers' (`worker#1`), from processes that have ended.
    """
    for trial in _running(study):
        owner = str(trial.user_attrs.get(WORKER))
        if worker is None or owner == worker or owner.startswith(f"{worker}#"):
            _fail(study, trial)


class SilenceWatch:
    """The signs of life that this process saw in a shared study: who is silent for `grace_seconds` counts as dead.

    Silence is measured by this process's own clock, from what it saw last: the clocks of several machines differ.
    """

    def __init__(self, grace_seconds: float = GRACE_SECONDS) -> None:
        self._grace_seconds = grace_seconds
        self._last: dict[int, tuple[object, float]] = {}

    def end_silent(self, study: optuna.Study) -> None:
        """Mark as failed the trials of silent workers, so that another one does them."""
        now, last = time.monotonic(), self._last
        self._last = {}
        for trial in _running(study):
            sign = trial.user_attrs.get(_BEAT), len(trial.params), len(trial.user_attrs)
            seen, since = last.get(trial.number, (None, now))
            self._last[trial.number] = sign, (since if sign == seen else now)
            if sign == seen and now - since > self._grace_seconds:
                _fail(study, trial)


def _running(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))


def _fail(study: optuna.Study, trial: FrozenTrial) -> None:
    with suppress(RuntimeError, ValueError):  # it has just been finished
        study.tell(trial.number, state=TrialState.FAIL)


def begin(
    study: optuna.Study, space: Space, worker: str, may_begin: Callable[[int], bool] = lambda position: True
) -> Trial | None:
    """A new trial, `worker`'s from its first moment, at a position of its own, with a design that the sampler proposes.

    As `Study.ask`, which cannot say whose a trial is before the sampler has done its work, which may take seconds.
    None where the position that was left must not begin yet.
    """
    while True:
        template = create_trial(state=TrialState.RUNNING, user_attrs={WORKER: worker})
        number = study._storage.create_new_trial(study._study_id, template)
        try:
            if not may_begin(position(study, study._storage.get_trial(number))):
                study._storage.set_trial_state_values(number, TrialState.FAIL)
                return None
            trial = Trial(study, number)
            for name, distribution in space_distributions(space).items():
                trial._suggest(name, distribution)
            return trial
        except UpdateFinishedTrialError:  # it took so long that others gave it up
            continue


@contextmanager
def working(study: optuna.Study, trial_id: int, beat_seconds: float = BEAT_SECONDS) -> Iterator[None]:
    """Let the other workers of a shared study see, every `beat_seconds` while the block runs, that this one lives."""
    ended = Event()

    def beat() -> None:
        count = 0
        while not ended.wait(beat_seconds):
            count += 1
            with suppress(Exception):  # a database that is busy now is told the next time
                study._storage.set_trial_user_attr(trial_id, _BEAT, count)

    thread = Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
