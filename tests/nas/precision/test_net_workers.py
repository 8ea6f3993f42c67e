"""Several processes of one search of a net of one's own: they share the designs that a strategy proposes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from own_nets import SIZE, residual_net
from refusals import refused

from edgemtl.nas.evaluation import open_storage, open_study
from edgemtl.nas.evaluation.trials import position_of
from edgemtl.nas.precision import PrecisionRequest, search_precision
from edgemtl.own import net_of_model
from edgemtl.progress import Progress

STARTING_SECONDS = 1200


def study(run: Path) -> optuna.Study:
    return open_study("search", open_storage(run / "study.journal"))


def trials(run: Path) -> list[FrozenTrial]:
    return study(run).get_trials(deepcopy=False)


def designs(run: Path) -> list[tuple[int, dict[str, object]]]:
    """Position and design of everything that was evaluated, by position; twice where it was twice."""
    complete = [trial for trial in trials(run) if trial.state == TrialState.COMPLETE]
    return sorted(((position_of(trial), trial.params) for trial in complete), key=lambda each: each[0])


def wait_for_helper(run: Path, state: TrialState) -> None:
    """Wait until a trial of the first helper is in this state."""
    opened, deadline = study(run), time.monotonic() + STARTING_SECONDS
    while not any(str(t.user_attrs.get("worker")).endswith("#1") for t in opened.get_trials(False, (state,))):
        assert time.monotonic() < deadline and multiprocessing.active_children(), "the helper does nothing"
        time.sleep(0.1)


@pytest.fixture
def begun(request_of: Callable[..., PrecisionRequest], tmp_path: Path) -> Callable[..., PrecisionRequest]:
    """Requests that go on with a copy of one run, which was stopped once its strategy was to begin."""

    def stop(progress: Progress) -> None:
        if progress.stage == "search":
            raise KeyboardInterrupt

    options = {"strategy": "random", "budgets": ("50%FLOPs",), "threads": 1, "evaluations": 5}
    with pytest.raises(KeyboardInterrupt):
        search_precision(request_of(**options), stop)

    def make(name: str, workers: int) -> PrecisionRequest:
        shutil.copytree(tmp_path / "run", tmp_path / name)
        return request_of(**options, out=tmp_path / name, workers=workers, resume=True)

    return make


@pytest.mark.parametrize("killed", [False, True])
def test_two_workers_evaluate_what_one_does_also_where_one_is_killed(
    begun: Callable[..., PrecisionRequest], tmp_path: Path, killed: bool
) -> None:
    alone, both = begun("alone", 1), begun("both", 2)
    search_precision(alone)
    events: list[Progress] = []

    def report(event: Progress) -> None:
        events.append(event)
        if event.stage == "search" and sum(each.stage == "search" for each in events) == 1:
            wait_for_helper(both.out, TrialState.RUNNING if killed else TrialState.COMPLETE)
            if killed:
                (helper,) = multiprocessing.active_children()
                os.kill(helper.pid or 0, signal.SIGKILL)
                helper.join()

    result = search_precision(both, report)
    assert designs(both.out) == designs(alone.out)
    assert [position for position, _ in designs(both.out)] == list(range(result.evaluations))
    assert not any(trial.state == TrialState.RUNNING for trial in trials(both.out))
    ended = [event.text for event in events if event.text.startswith("a worker ended")]
    assert ended == (["a worker ended (signal 9): 1 left, which do its design again"] if killed else [])
    assert not multiprocessing.active_children() and result.feasible


def test_workers_are_refused_where_there_is_nothing_to_share(request_of: Callable[..., PrecisionRequest]) -> None:
    assert "2 workers given, which share designs that a strategy" in refused(
        lambda: search_precision(request_of(workers=2))
    )
    assert "0 workers given: give 1 to 64" in refused(
        lambda: search_precision(request_of(strategy="random", workers=0))
    )


def test_a_net_is_opened_again_by_another_process(request_of: Callable[..., PrecisionRequest]) -> None:
    net, image = request_of().net, np.random.default_rng(3).random((1, 3, *SIZE), np.float32)
    again = pickle.loads(pickle.dumps(net))
    assert (again.name, again.size, again.model) == (net.name, net.size, net.model)
    for name, value in net.reference(image).items():
        np.testing.assert_array_equal(again.reference(image)[name], value)
    assert "write it to a file first" in refused(lambda: pickle.dumps(net_of_model(residual_net(), "made")))
