"""Who works at which trial of a study, and what becomes of the trials of those that were killed."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from edgemtl.nas.evaluation.trials import finished, open_study, position, record, seen_keys
from edgemtl.nas.search.strategies.random import RandomDesignSampler
from edgemtl.nas.search.workers import begin, busy_elsewhere, end_abandoned, end_silent, working
from edgemtl.spaces import Space
from edgemtl.testing.landscape import PAIR, evaluate, problem, space

FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return space(tmp_path_factory.mktemp("pair"), PAIR)


def shared(pair: Space, folder: Path, grace_seconds: int = 60) -> optuna.Study:
    study = open_study("s", folder / "journal", f"sqlite:///{folder / 'studies.db'}", grace_seconds)
    study.sampler = RandomDesignSampler(problem(pair), 0, 4)
    return study


def states(study: optuna.Study) -> list[TrialState]:
    return [trial.state for trial in study.get_trials(deepcopy=False)]


def test_a_worker_takes_its_own_trials_over_and_leaves_those_of_others(pair: Space, tmp_path: Path) -> None:
    study = shared(pair, tmp_path)
    mine, others = begin(study, pair, "mine"), begin(study, pair, "others")
    study.ask()  # its process was killed before it could say whose it is
    end_abandoned(study, "mine")
    assert states(study) == [TrialState.FAIL, TrialState.RUNNING, TrialState.FAIL]
    assert busy_elsewhere(study, "mine") == 1
    again = begin(study, pair, "mine")
    assert position(study, study.trials[again.number]) == 1, "the other one is at the first place now"
    assert seen_keys(study, pair) == {pair.design(trial.params).key for trial in (others, again)}
    assert mine.params != again.params or mine.params == others.params


def test_a_trial_that_was_taken_for_abandoned_is_begun_again(pair: Space, tmp_path: Path) -> None:
    study = shared(pair, tmp_path)

    class Sampler(RandomDesignSampler):
        calls = 0

        def next_design(self, study: optuna.Study, position: int) -> Any:
            self.calls += 1
            if self.calls == 1:
                end_abandoned(study, "another")  # which starts at this moment
            return super().next_design(study, position)

    study.sampler = Sampler(problem(pair), 0, 4)
    begin(study, pair, "mine")
    assert states(study) == [TrialState.FAIL, TrialState.RUNNING]


def test_a_storage_that_fails_is_told_and_not_asked_for_ever(
    pair: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = shared(pair, tmp_path)

    def ask(*given: object) -> None:
        raise RuntimeError("the table schema is another one")

    monkeypatch.setattr(study, "ask", ask)
    with pytest.raises(RuntimeError, match="table schema"):
        begin(study, pair, "mine")


def test_the_trial_of_a_silent_worker_is_taken_over_and_that_of_a_living_one_is_not(
    pair: Space, tmp_path: Path
) -> None:
    study = shared(pair, tmp_path, grace_seconds=1)
    begin(study, pair, "killed")
    living = begin(study, pair, "living")
    with working(study, living, beat_seconds=0.2):
        time.sleep(3.1)
        end_silent(study)
        assert states(study) == [TrialState.FAIL, TrialState.RUNNING]
    evaluation = evaluate(pair.design(living.params))
    record(living, evaluation)
    study.tell(living, list(problem(pair).objectives(evaluation)))
    assert len(finished(study)) == 1


def work(pair: Space, folder: Path, barrier: Barrier, name: str) -> None:
    barrier.wait(60)
    study = shared(pair, folder)
    while len(finished(study)) < 6:
        trial = begin(study, pair, name)
        evaluation = evaluate(pair.design(trial.params))
        record(trial, evaluation)
        study.tell(trial, list(problem(pair).objectives(evaluation)))


def test_workers_that_make_one_new_database_at_once_wait_for_each_other(pair: Space, tmp_path: Path) -> None:
    barrier = FORK.Barrier(4)
    workers = [FORK.Process(target=work, args=(pair, tmp_path, barrier, str(number))) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * 4
    done = finished(shared(pair, tmp_path))
    assert len(done) >= 6
    assert [path.name for path in tmp_path.iterdir()] == ["studies.db"]
