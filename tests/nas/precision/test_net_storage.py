"""Runs of a net of one's own that share one study: each with its folder, as on several machines."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from onnx import numpy_helper
from optuna.trial import TrialState
from own_nets import residual_net
from refusals import refused

from edgemtl.files.seals import sealed
from edgemtl.nas.evaluation import Evaluation, finished, open_storage
from edgemtl.nas.evaluation.trials import position_of
from edgemtl.nas.precision import PrecisionRequest, search_precision
from edgemtl.nas.precision.forms import NarrowForms
from edgemtl.nas.precision.net_designs import NetDesigns
from edgemtl.nas.search import workers
from edgemtl.progress import Progress
from edgemtl.spaces import Design

SPAWN = multiprocessing.get_context("spawn")
GRACE_SECONDS, PATIENCE_SECONDS = 15.0, 1200.0
OPTIONS: dict[str, Any] = {"strategy": "random", "budgets": ("50%FLOPs",), "threads": 1, "evaluations": 3}
Requests = Callable[..., PrecisionRequest]


def journal(folder: Path) -> str:
    return f"journal://{folder / 'studies.journal'}"


def sqlite(folder: Path) -> str:
    return f"sqlite:///{folder / 'studies.db'}"


def shared(url: str) -> optuna.Study:
    """The study of all runs whose folder is called `run`."""
    return optuna.load_study(study_name="run", storage=open_storage(Path(), url))


def designs(url: str) -> list[tuple[int, str]]:
    """Position and design of everything that was evaluated."""
    return [(position_of(trial), trial.user_attrs["key"]) for trial in finished(shared(url))]


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not file.exists():
        assert time.monotonic() < deadline, f"no {file.name}"
        time.sleep(0.1)


def impatient() -> None:
    """Let this process wait less for silent ones, and give signs of life more often."""
    workers.SilenceWatch.__init__.__defaults__ = (GRACE_SECONDS,)
    workers.working.__wrapped__.__defaults__ = (GRACE_SECONDS / 15,)  # type: ignore[attr-defined]


def kill_in_seeding(request: PrecisionRequest, signs: Path) -> None:
    """Search, until the process is killed while it measures the first designs and another one waits for them."""

    def report(event: Progress) -> None:
        if event.stage == "precision":
            (signs / "seeding").touch()
            wait_for(signs / "waiting")
            os.kill(os.getpid(), signal.SIGKILL)

    impatient()
    search_precision(request, report)


def wait_for_seeding(request: PrecisionRequest, signs: Path) -> None:
    """Search once another process measures the first designs."""

    def report(event: Progress) -> None:
        if event.text.startswith("another worker measures the first designs"):
            (signs / "waiting").touch()

    impatient()
    wait_for(signs / "seeding")
    search_precision(request, report)


def kill_in_design(request: PrecisionRequest, signs: Path) -> None:
    """Search, until the process is killed at its first design."""

    def evaluate(own: NetDesigns, *unused: object) -> Evaluation:
        (signs / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    impatient()
    NetDesigns.evaluate = evaluate  # type: ignore[method-assign]
    search_precision(request)


def outlive(request: PrecisionRequest, signs: Path) -> None:
    """Search; the first design ends once another process was killed at its own."""
    whole = NetDesigns.evaluate

    def evaluate(own: NetDesigns, design: Design, *more: Any) -> Evaluation:
        wait_for(signs / "killed")
        return whole(own, design, *more)

    impatient()
    NetDesigns.evaluate = evaluate  # type: ignore[method-assign]
    search_precision(request)


def at_once(signs: Path, *works: tuple[Callable[..., None], PrecisionRequest]) -> list[int | None]:
    """Exit codes of searches in processes of their own, which run at once."""
    processes = [SPAWN.Process(target=work, args=(request, signs)) for work, request in works]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE_SECONDS)
    return [process.exitcode for process in processes]


def test_who_is_killed_while_it_measures_the_first_designs_is_followed_by_who_waits_for_them(
    request_of: Requests, tmp_path: Path
) -> None:
    url = sqlite(tmp_path)
    first, second = (request_of(**OPTIONS, storage=url, out=tmp_path / name / "run") for name in "ab")
    assert at_once(tmp_path, (kill_in_seeding, first), (wait_for_seeding, second)) == [-signal.SIGKILL, 0]
    evaluated, study = designs(url), shared(url)
    assert [position for position, _ in evaluated] == list(range(len(evaluated)))
    assert len(evaluated) == study.user_attrs["evaluations_known"] + OPTIONS["evaluations"]
    assert not any(trial.state == TrialState.RUNNING for trial in study.get_trials())
    assert not (first.out / "result.json").exists() and (second.out / "result.json").is_file()
    events: list[Progress] = []
    resumed = search_precision(replace(first, resume=True), events.append)
    assert resumed.feasible and resumed.evaluations == len(evaluated)
    assert not [event for event in events if event.stage == "search"], "all was evaluated by the other one"
    assert designs(url) == evaluated
    assert search_precision(replace(first, resume=True)) == resumed


@pytest.fixture
def seeded(request_of: Requests, tmp_path: Path) -> Path:
    """A journal whose study has its first designs, of a run that was stopped once its strategy was to begin."""

    def stop(progress: Progress) -> None:
        if progress.stage == "search":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search_precision(request_of(**OPTIONS, storage=journal(tmp_path), out=tmp_path / "seeded" / "run"), stop)
    return tmp_path / "studies.journal"


def test_of_two_runs_one_is_killed_and_the_other_does_its_design(
    request_of: Requests, seeded: Path, tmp_path: Path
) -> None:
    requests = {}
    for name in ("alone", "killed", "living"):
        folder = tmp_path / ("alone" if name == "alone" else "both")
        folder.mkdir(exist_ok=True)
        shutil.copy(seeded, folder)
        requests[name] = request_of(**OPTIONS, storage=journal(folder), out=folder / name / "run")
    alone = search_precision(requests["alone"])
    both = (kill_in_design, requests["killed"]), (outlive, requests["living"])
    assert at_once(tmp_path, *both) == [-signal.SIGKILL, 0]
    assert designs(journal(tmp_path / "both")) == designs(journal(tmp_path / "alone"))
    assert len(designs(journal(tmp_path / "both"))) == alone.evaluations
    trials = shared(journal(tmp_path / "both")).get_trials()
    assert not any(trial.state == TrialState.RUNNING for trial in trials)
    again = search_precision(replace(requests["killed"], resume=True))
    assert again.evaluations == alone.evaluations and again.feasible


def test_a_shared_study_of_something_else_is_one_line(request_of: Requests, seeded: Path, tmp_path: Path) -> None:
    folders = (tmp_path / str(number) / "run" for number in itertools.count())

    def line(**changes: Any) -> str:
        given = {"storage": journal(tmp_path), "out": next(folders), **OPTIONS, **changes}
        return refused(lambda: search_precision(request_of(**given)))

    start = "study 'run' in --storage is of another"
    assert line(budgets=("60%FLOPs",)).startswith(f"{start} budgets (50%FLOPs, here 60%FLOPs): ask for the same, or")
    assert line(strategy="tpe").startswith(f"{start} strategy (random, here tpe): ")
    study = shared(journal(tmp_path))
    common = study.user_attrs["common"]
    study.set_user_attr("common", {**common, "choices_sha256": "0"})
    assert "is of a net with other channels or blocks than it has here: use the versions of PyTorch" in line()
    study.set_user_attr("common", {**common, "prune_map": {**common["prune_map"], "weights_sha256": "0"}})
    assert "the pruning map in study 'run' is of another net, or of other images: begin again" in line()
    study.set_user_attr("common", {**common, "prune_map": {**common["prune_map"], "base": {"map": 0.0}}})
    assert "pruning map study 'run' was changed after edgemtl wrote it" in line()
    model = residual_net()
    weights = next(each for each in model.graph.initializer if each.raw_data and len(each.dims) > 1)
    weights.CopyFrom(numpy_helper.from_array(1.01 * numpy_helper.to_array(weights), weights.name))
    assert line(model=model).startswith(f"{start} net: ask for the same, or choose an --out with another name")
    study.set_user_attr("config", {"schema": "edgemtl.run/1"})
    assert "study 'run' in --storage has schema 'edgemtl.run/1'" in line()


def test_channels_stay_by_the_map_that_another_process_measured(forms: NarrowForms) -> None:
    narrowing, fit = forms.narrowing, forms.narrowing.levels(2)[-1]
    content = {name: value for name, value in narrowing.measured().items() if name != "sha256"}
    backwards = {group: [order[::-1] for order in orders] for group, orders in content["orders"].items()}
    other = narrowing.with_measured(sealed({**content, "orders": backwards}), "study 'run'", "begin again")
    assert other.measured()["orders"] == backwards and narrowing.measured()["orders"] == content["orders"]
    assert other.narrow(fit).model != narrowing.narrow(fit).model
    same = narrowing.with_measured(narrowing.measured(), "study 'run'", "begin again")
    assert same.narrow(fit).model == narrowing.narrow(fit).model


def test_a_storage_that_is_no_use_is_refused_before_the_net_is_run(request_of: Requests, tmp_path: Path) -> None:
    events: list[Progress] = []

    def line(**changes: Any) -> str:
        return refused(lambda: search_precision(request_of(**{**OPTIONS, **changes}), events.append))

    assert "--storage is where workers share designs that a strategy proposes" in line(storage="s.journal", strategy="")
    assert "--storage 'nonsense' is of no kind that is known: give journal:///PATH" in line(storage="nonsense")
    assert "in --storage cannot be opened" in line(storage="sqlite:////nowhere/at/all/x.db")
    assert "start one with `initdb -D pg" in line(storage="postgresql://me:secret@127.0.0.1:9/studies")
    assert not events and not (tmp_path / "run").exists()
