"""The first designs of a study that many workers share: one of them measures what all begin with, the others wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from edgemtl.errors import UserError
from edgemtl.nas.evaluation import POSITION
from edgemtl.nas.search.study import is_seeded
from edgemtl.nas.search.workers import WORKER, SilenceWatch, working
from edgemtl.progress import Report, note
from edgemtl.signals import deferred

__all__ = ["seeding_turn"]

_SEEDING = -1
"""The position of the trial that runs while a worker measures first designs: before those of all designs."""
_WAIT_SECONDS = 0.5


@contextmanager
def seeding_turn(study: optuna.Study, worker: str, report: Report) -> Iterator[Callable[[], None]]:
    """Wait until the study is seeded, or until no other worker seeds it, so that the block does.

    A trial that runs stands for the one that does; where it gives no sign of life, another takes that over. Yields a
    check that raises `UserError` where this was taken over from `worker`, which is to write nothing then.
    """
    watch, waits = SilenceWatch(), False
    while (claim := _claim(study, worker)) is None and not is_seeded(study):
        if not waits:
            note(report, "another worker measures the first designs, which all begin with: waiting for them")
            waits = True
        time.sleep(_WAIT_SECONDS)
        watch.end_silent(study)
    if claim is None:
        yield lambda: None
        return
    try:
        with working(study, claim):
            yield lambda: _check_held(study, claim)
    finally:
        if _is_held(study, claim):
            study._storage.set_trial_state_values(claim, TrialState.FAIL)


def _claim(study: optuna.Study, worker: str) -> int | None:
    """The id of a trial that stands for seeding, `worker`'s; None where another one has it, or nobody needs to."""
    if is_seeded(study) or _claims(study):
        return None
    with deferred():
        template = create_trial(state=TrialState.RUNNING, user_attrs={WORKER: worker, POSITION: _SEEDING})
        claim = int(study._storage.create_new_trial(study._study_id, template))
        if not is_seeded(study) and claim == min(each._trial_id for each in _claims(study)):
            return claim
        study._storage.set_trial_state_values(claim, TrialState.FAIL)  # who asked at the same moment was first
        return None


def _claims(study: optuna.Study) -> list[FrozenTrial]:
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [trial for trial in running if trial.user_attrs.get(POSITION) == _SEEDING]


def _is_held(study: optuna.Study, claim: int) -> bool:
    return study._storage.get_trial(claim).state == TrialState.RUNNING


def _check_held(study: optuna.Study, claim: int) -> None:
    if not _is_held(study, claim):
        raise UserError(
            "this process stood still for so long that another worker of the study in --storage measures the first "
            "designs now: go on with --resume"
        )
