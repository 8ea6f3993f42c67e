"""Channels and precision of a net of one's own by a strategy, which begins with what the greedy search ended with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper
from own_nets import model_of, saved, weight
from refusals import refused

from edgemtl.bundle import read_manifest
from edgemtl.cli import main
from edgemtl.nas.evaluation import finished, open_storage, open_study
from edgemtl.nas.precision import PrecisionRequest, search_precision
from edgemtl.nas.prune import FineTuning
from edgemtl.progress import Progress


@pytest.fixture
def request_of(request_of: Callable[..., PrecisionRequest]) -> Callable[..., PrecisionRequest]:
    """Requests for half of the FLOPs by a strategy."""
    return partial(request_of, strategy="random", budgets=("50%FLOPs",), threads=1)


def proposed(run: Path) -> list[dict[str, Any]]:
    """The options of every evaluation, in order of positions."""
    return [trial.params for trial in finished(open_study("search", open_storage(run / "study.journal")))]


def test_a_killed_and_a_stopped_search_go_on_and_end_as_one_that_was_not(
    request_of: Callable[..., PrecisionRequest], tmp_path: Path
) -> None:
    killed = tmp_path / "killed"

    def copy(progress: Progress) -> None:
        """Keep the folder as a kill after the first design would leave it."""
        if progress.stage == "search" and progress.done == progress.total - 2:
            shutil.copytree(tmp_path / "run", killed)

    def stop(progress: Progress) -> None:
        if progress.stage == "search":
            raise KeyboardInterrupt

    result = search_precision(request_of(evaluations=3), copy)
    assert result.strategy == "random" and result.seed == 0 and result.feasible
    assert result.best is not None and result.baseline is not None
    assert result.best.flops <= 0.5 * result.baseline.flops
    assert search_precision(request_of(evaluations=3, resume=True)) == result
    designs, left = proposed(tmp_path / "run"), proposed(killed)
    assert left == designs[:-2] and result.evaluations == len(designs)
    events: list[Progress] = []
    assert "another seed" in refused(
        lambda: search_precision(request_of(out=killed, seed=1, resume=True), events.append)
    )
    assert not events, "nothing is opened for a seed that the run was not begun with"
    with pytest.raises(KeyboardInterrupt):
        search_precision(request_of(out=killed, evaluations=3, resume=True), stop)
    assert proposed(killed) == designs[:-1]
    again = search_precision(request_of(out=killed, evaluations=3, resume=True))
    assert proposed(killed) == designs and again.feasible == result.feasible


def test_what_the_greedy_search_chose_is_among_the_finalists(
    request_of: Callable[..., PrecisionRequest], tmp_path: Path
) -> None:
    greedy = search_precision(request_of(strategy="", out=tmp_path / "greedy", objectives=("delta_m", "bytes")))
    assert greedy.objectives == (), "it has none, whatever is named"
    result = search_precision(request_of(strategy="tpe", evaluations=2, tuning=FineTuning(2, batch=2)))
    known = proposed(tmp_path / "run")[:-2]
    assert greedy.best is not None and result.best is not None and len(known) == len({json.dumps(d) for d in known})
    chosen = {name: option for name, option in greedy.best.design.items() if name.endswith(".channels")}
    assert any(chosen.items() <= each.items() for each in known)
    assert sum(entry.design == result.best.design for entry in result.front) == 1, "no twin with other weights"
    (trained,) = (tmp_path / "run/training").iterdir()
    assert trained.name.startswith("pruned-")
    feasible = [entry for entry in result.front if entry.feasible]
    assert all(0.95 * result.best.latency_ms.value <= entry.latency_ms.value for entry in feasible)


def test_more_designs_that_a_stop_kept_from_the_choice_are_chosen_from_later(
    request_of: Callable[..., PrecisionRequest], tmp_path: Path
) -> None:
    def stop(progress: Progress) -> None:
        if progress.stage == "finalists":
            raise KeyboardInterrupt

    first = search_precision(request_of(evaluations=2))
    more = request_of(evaluations=3, resume=True)
    with pytest.raises(KeyboardInterrupt):
        search_precision(more, stop)
    result = search_precision(more)
    assert result.evaluations == first.evaluations + 1 == len(proposed(tmp_path / "run"))
    assert search_precision(more) == result


def test_the_answer_takes_least_of_the_first_cost_that_is_an_objective(
    request_of: Callable[..., PrecisionRequest], tmp_path: Path
) -> None:
    objectives = ("delta_m", "bytes", "latency")
    result = search_precision(request_of(budgets=("200%ms",), evaluations=2, objectives=objectives))
    assert result.objectives == objectives and result.best is not None and result.feasible
    assert result.best.bytes == min(entry.bytes for entry in result.front if entry.feasible)
    trials = finished(open_study("search", open_storage(tmp_path / "run/study.journal")))
    assert {len(trial.values) for trial in trials} == {len(objectives)}
    again = request_of(budgets=("200%ms",), evaluations=2, resume=True)
    assert "another objectives" in refused(lambda: search_precision(again))
    assert main(["report", str(tmp_path / "run"), "--out", str(tmp_path / "page.html")]) == 0
    assert "The objectives side by side" in (tmp_path / "page.html").read_text()


def test_a_strategy_searches_for_what_the_preference_weighs(
    request_of: Callable[..., PrecisionRequest], tmp_path: Path
) -> None:
    """The quality of every design in the study, those of the greedy search too, is the weighted mean."""
    result = search_precision(request_of(evaluations=2, preference="map=1,pose=4"))
    assert result.preferred == "map=1,pose=4" and result.best is not None
    scores = [(entry.weighted_delta_m, entry.metrics) for entry in result.front]
    trials = finished(open_study("search", open_storage(tmp_path / "run/study.journal")))
    scores += [(-trial.values[0], trial.user_attrs["metrics"]) for trial in trials]
    for weighted, metrics in scores:
        lost = {task: 1 - metrics[task]["agreement"] for task in ("map", "pose")}
        assert weighted == pytest.approx(-(lost["map"] + 4 * lost["pose"]) / 5)
    again = request_of(evaluations=2, preference="map=4", resume=True)
    assert "another preference" in refused(lambda: search_precision(again))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["linas", "nsga2"])
def test_the_command_line_searches_exports_and_reports(
    request_of: Callable[..., PrecisionRequest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    strategy: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    floors = [word for floor in ("map=90%", "pose=90%") for word in ("--floor", floor)]
    search = [
        "search",
        "theirs.onnx",
        "--data",
        "photos",
        *floors,
        "--budget",
        "60%FLOPs",
        "--threads",
        "1",
        "--out",
        "run",
    ]
    words = [*search, "--strategy", strategy, "--evaluations", "12", "--seed", "3"]
    assert main([*words, "--format", "json"]) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert result["strategy"] == strategy and result["seed"] == 3 and result["feasible"]
    assert result["best"]["flops"] <= 0.6 * result["front"][-1]["flops"]
    assert "designs evaluated" in shown.err
    export = ["export", "theirs.onnx", "--precision", "run", "--target", "onnxruntime", "--data", "photos"]
    assert main([*export, "--out", "mine"]) == 0
    assert read_manifest(tmp_path / "mine").cost.flops == result["best"]["flops"]
    assert main(["report", "run", "--out", "page.html"]) == 0
    capsys.readouterr()
    assert main([*words, "--resume"]) == 0
    assert "of the FLOPs are left" in capsys.readouterr().out


def test_strategies_and_numbers_that_are_no_use_are_refused_in_a_line(
    request_of: Callable[..., PrecisionRequest],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    search = ["search", "theirs.onnx", "--data", "photos", "--out", "run"]
    for words, message in (
        (["--strategy", "masks"], "strategy masks searches the weights of a supernet"),
        (["--strategy", "preference"], "linas, nsga2, random, tpe"),
        (["--strategy", "linsa"], "unknown strategy"),
        (["--strategy", "random", "--evaluations", "1"], "--evaluations 1: a strategy evaluates 2 designs or more"),
        (["--strategy", "random", "--seed", "-1"], "seed -1 cannot be used"),
        (["--strategy", "linas", "--set", "generations=0"], "0 generations given"),
        (["--strategy", "random", "--objective", "bytes"], "objectives bytes given: give two or more"),
        (["--strategy", "random", "--objective", "bytes", "--objective", "lag"], "unknown objective 'lag'"),
        (["--objective", "bytes", "--seed", "1"], "--objective and --seed: a net of one's own is searched without"),
        (["--evaluations", "4"], "--evaluations: a net of one's own is searched without a strategy"),
        (["--strategy", "random", "--workers", "65"], "65 workers given: give 1 to 64 processes of this machine"),
        (["--workers", "2"], "--workers: a net of one's own is searched without a strategy"),
        (["--storage", "s.journal"], "--storage: a net of one's own is searched without a strategy"),
        (["--strategy", "random", "--storage", "s"], "--storage 's' is of no kind that is known"),
    ):
        assert main([*search, *words]) == 1
        assert message in capsys.readouterr().err
    nodes = [helper.make_node("Conv", ["x", "w"], ["map"], name="only", pads=[1, 1, 1, 1])]
    saved(model_of(nodes, {"map": TensorProto.FLOAT}, [weight("w", 2, 3, 3, 3)]), tmp_path)
    assert main([*search, "--strategy", "random"]) == 1
    error = capsys.readouterr().err
    assert "--strategy random chooses channels too" in error and "no channels of the module can be pruned" in error
    assert not (tmp_path / "run").exists()
