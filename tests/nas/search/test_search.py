from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import create_trial
from PIL import Image
from refusals import refused
from small_world import Ask

from edgemtl.data import open_source
from edgemtl.errors import UserError
from edgemtl.files.claim import claim
from edgemtl.models import Supernet, load_supernet, save_supernet
from edgemtl.nas.evaluation import Evaluator, open_storage, open_study
from edgemtl.nas.runs import RunFolder
from edgemtl.nas.search import SearchRequest, search
from edgemtl.progress import Progress
from edgemtl.results import read_result
from edgemtl.spaces import load_space
from edgemtl.targets import find_target, measurer_of
from edgemtl.tasks import relative_change
from edgemtl.testing.landscape import PAIR, TINY, space, write_space
from edgemtl.testing.world import TASKS, write_data, write_supernet

KEYS = {
    "schema", "command", "seed", "data", "space", "strategy", "budgets", "feasible", "best", "front", "evaluations",
    "seconds", "environment", "floors", "preference", "early_stops", "known_from", "origin",
    "objectives",
}  # fmt: skip
BEST_KEYS = {
    "design", "flops", "macs", "params", "bytes", "latency_ms", "metrics", "delta_m", "paths", "feasible", "kind",
    "name", "weighted_delta_m", "limits", "blocks", "fine_tuning",
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SearchRequest, list[Progress]]]:
    """A search that came to its end, and what it reported."""
    events: list[Progress] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        request = SearchRequest(
            tmp_path_factory.mktemp("runs") / "first", ("80%FLOPs", "90%MB"), space="tiny", data="photos",
            floors=("depth=1000%",), preference="depth=3", evaluations=4, batch=2, threads=1, finetune=0,
            settings={"generations": 5}, supernet=home / "supernet.safetensors",
        )  # fmt: skip
        search(request, events.append)
    yield request, events


def again(request: SearchRequest, **changes: Any) -> SearchRequest:
    return SearchRequest(**(vars(request) | {"resume": True} | changes))


def copied(request: SearchRequest, folder: Path) -> Path:
    return Path(shutil.copytree(request.out, folder / "run"))


def refusal(request: SearchRequest) -> str:
    """The line that refuses a search; nothing was written."""
    before = sorted(request.out.rglob("*"))
    line = refused(lambda: search(request))
    assert sorted(request.out.rglob("*")) == before
    return line


def test_the_result_has_its_stable_keys(finished: tuple[SearchRequest, list[Progress]]) -> None:
    request, _ = finished
    content = json.loads((request.out / "result.json").read_text())
    assert set(content) == KEYS
    assert content["schema"] == "edgemtl.result/1"
    assert content["budgets"] == ["80%FLOPs", "90%MB"]
    assert content["evaluations"] == 4
    assert content["data"]["scored_on"] == "3 test images"
    assert set(content["best"]) == BEST_KEYS
    assert set(content["best"]["latency_ms"]) == {"value", "kind", "device", "runtime"}
    assert content["best"]["latency_ms"]["kind"] == "measured"
    assert content["front"][0] == content["best"]
    assert content["front"][-1]["kind"] == "baseline"
    for entry in content["front"]:
        assert entry["flops"] == 2 * entry["macs"]
        assert set(entry["metrics"]) == set(entry["paths"]) == {"depth", "kind"}
        assert "accuracy" in entry["metrics"]["kind"]
    assert content["front"][-1]["delta_m"] == content["front"][-1]["weighted_delta_m"] == 0
    assert content["floors"] == ["depth=1000%"]
    assert content["preference"] == {"depth": 3.0, "kind": 1.0}
    assert content["environment"]["packages"]["onnxruntime"]


@pytest.mark.usefixtures("ask")
def test_no_budget_is_exceeded_and_every_figure_is_that_of_the_design(
    finished: tuple[SearchRequest, list[Progress]],
) -> None:
    result = read_result(finished[0].out)
    where = load_space("tiny", TASKS).for_target(find_target("onnxruntime").traits)
    largest = where.largest().cost()
    assert result.feasible
    for entry in result.front[:-1]:
        cost = where.design(entry.design).cost()
        assert entry.feasible
        assert (entry.flops, entry.params, entry.bytes) == (cost.flops, cost.params, cost.weight_bytes)
        assert cost.flops <= 0.8 * largest.flops
        assert cost.weight_bytes <= 0.9 * largest.weight_bytes
        for task, path in entry.paths.items():
            assert path.flops == where.design(entry.design).cost([task]).flops < cost.flops
    assert result.front[-1].feasible is False


def test_every_limit_is_told_and_both_means(finished: tuple[SearchRequest, list[Progress]]) -> None:
    result = read_result(finished[0].out)
    base = result.front[-1]
    for entry in result.front:
        assert [check.name for check in entry.limits] == ["80%FLOPs", "90%MB", "floor depth=1000%"]
        assert entry.feasible == all(check.kept for check in entry.limits)
        assert entry.limits[0].value == entry.flops and entry.limits[1].value == entry.bytes
        changes = [relative_change(task, entry.metrics[task.name], base.metrics[task.name]) for task in TASKS]
        assert entry.delta_m == pytest.approx((changes[0] + changes[1]) / 2)
        assert entry.weighted_delta_m == pytest.approx((3 * changes[0] + changes[1]) / 4)
    assert [check.name for check in base.broken] == ["80%FLOPs", "90%MB"]
    assert base.limits[0].excess == pytest.approx(0.25)
    assert base.limits[2].value == 0 and base.limits[2].excess == pytest.approx(-10)


def test_every_design_of_the_front_is_kept_under_its_name(finished: tuple[SearchRequest, list[Progress]]) -> None:
    result = read_result(finished[0].out)
    names = [entry.name for entry in result.front]
    assert len(set(names)) == len(names)
    assert names[0] == "best"
    assert RunFolder(finished[0].out).names() == sorted(map(str, names))


def test_it_tells_how_far_it_is(finished: tuple[SearchRequest, list[Progress]]) -> None:
    events = finished[1]
    stages = list(dict.fromkeys(event.stage for event in events))
    assert stages == ["preflight", "search", "finalists", "score"]
    (preflight,) = [event for event in events if event.stage == "preflight"]
    rows = preflight.rows
    assert preflight.floors is not None
    assert [(row.floor.text, row.largest) for row in preflight.floors] == [("depth=1000%", 0)]
    assert preflight.keeps_all in ("middle", "smallest"), "the largest is over both budgets"
    assert [row.budget.text for row in rows] == ["80%FLOPs", "90%MB"]
    assert all(row.satisfiable and row.smallest < row.middle < row.largest for row in rows)
    assert [event.done for event in events if event.stage == "search"] == [1, 2, 3, 4]
    assert all(event.done <= event.total for event in events)


def test_going_on_with_a_finished_run_returns_at_once(finished: tuple[SearchRequest, list[Progress]], ask: Ask) -> None:
    request, _ = finished
    before = (request.out / "result.json").stat()
    events: list[Progress] = []
    assert search(again(request), events.append) == read_result(request.out)
    assert events == []
    assert (request.out / "result.json").stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.usefixtures("ask")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"resume": False}, "exists: go on with --resume, or choose another --out"),
        ({"seed": 1}, "was started with another seed (0, here 1): resume it with the same"),
        ({"threads": 2}, "was started with another threads (1, here 2): resume it with the same"),
        ({"budgets": ("80%FLOPs",)}, "another budgets (80%FLOPs 90%MB, here 80%FLOPs): resume it"),
        (
            {"floors": ("depth=2%",), "preference": "depth=2"},
            "another floors (depth=1000%, here depth=2%) and preference (depth=3,kind=1, here depth=2,kind=1): resume",
        ),
        ({"settings": {"generations": 6}}, "another generations (5, here 6): resume it with the same"),
        (
            {"strategy": "random", "settings": {}, "target": "openvino"},
            "target (onnxruntime, here openvino) and strategy (linas, here random) and generations (5, here none): ",
        ),
    ],
)
def test_a_run_goes_on_only_as_it_began(
    finished: tuple[SearchRequest, list[Progress]], changes: dict[str, Any], expected: str
) -> None:
    assert expected in refusal(again(finished[0], **changes))


def test_more_evaluations_go_on_from_the_ones_that_are_there(
    finished: tuple[SearchRequest, list[Progress]], ask: Ask, tmp_path: Path
) -> None:
    out, events = copied(finished[0], tmp_path), list[Progress]()
    result = search(again(finished[0], out=out, evaluations=5), events.append)
    assert [(event.done, event.total) for event in events if event.stage == "search"] == [(5, 5)]
    assert result.evaluations == 5
    assert RunFolder(out).names() == sorted(str(entry.name) for entry in result.front)


def test_another_seed_gives_another_study(
    finished: tuple[SearchRequest, list[Progress]], ask: Ask, tmp_path: Path
) -> None:
    search(again(finished[0], out=tmp_path / "run", seed=1, resume=False, evaluations=2))
    journals = [RunFolder(out).journal.read_text() for out in (finished[0].out, tmp_path / "run")]
    keys = [{line.split('"key":"')[1][:12] for line in text.splitlines() if '"key":"' in line} for text in journals]
    assert (len(keys[0]), len(keys[1])) == (4, 2)
    assert keys[0] != keys[1]
    assert not keys[1] <= keys[0]


def test_a_budget_that_one_single_design_keeps(ask: Ask, tmp_path: Path, home: Path) -> None:
    """It is scored once, found again by every trial, and the run is finished all the same."""
    where = load_space("tiny", TASKS).for_target(find_target("onnxruntime").traits)
    least = min(design.cost().weight_bytes for design in where.uniform(where.smallest()))
    request = ask(tmp_path / "run", budgets=(f"{least}B",), evaluations=3)
    result = search(request)
    assert result.evaluations == 1
    assert result.feasible
    assert result.best is not None
    assert result.best.bytes == least
    events: list[Progress] = []
    assert search(again(request), events.append) == result
    assert events == []


KILLED = """
import json, os, signal, sys
from pathlib import Path
from edgemtl.nas.evaluation import Evaluator
from edgemtl.nas.search import SearchRequest, search

asked = json.loads(sys.argv[1])
asked |= {"out": Path(asked["out"]), "supernet": Path(asked["supernet"])}
number, evaluate, calls = getattr(signal, sys.argv[2]), Evaluator.evaluate, []

def stopped(*given, **more):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), number)
    return evaluate(*given, **more)

Evaluator.evaluate = stopped
search(SearchRequest(**asked))
"""


def stopped_by(request: SearchRequest, name: str, home: Path) -> int:
    """Exit status of a process that a signal hits in its third evaluation, however long one takes."""
    arguments = json.dumps({**asdict(request), "out": str(request.out), "supernet": str(request.supernet)})
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, arguments, name]
    return subprocess.run(command, cwd=home, env=environment, capture_output=True, timeout=300, check=False).returncode


def test_a_killed_search_goes_on_and_finishes(ask: Ask, tmp_path: Path, home: Path) -> None:
    """It answers as one that was not stopped: nothing here is timed, so that nothing may differ."""
    request = ask(tmp_path / "run", target="tensorrt-rtx")
    assert stopped_by(request, "SIGKILL", home) == -9
    assert sorted(path.name for path in request.out.iterdir()) == [".edgemtl.lock", "config.json", "study.journal"]
    events: list[Progress] = []
    result = search(again(request), events.append)
    assert [event.done for event in events if event.stage == "search"] == [3, 4]
    assert result.evaluations == 4
    assert result.feasible
    assert not (request.out / ".edgemtl.lock").exists()
    unbroken = search(ask(tmp_path / "unbroken", target="tensorrt-rtx"))
    assert (result.best, result.front) == (unbroken.best, unbroken.front)


@pytest.mark.parametrize("ended", [True, False])
def test_a_damaged_study_is_told_before_anything_is_measured(
    ask: Ask, tmp_path: Path, finished: tuple[SearchRequest, list[Progress]], ended: bool
) -> None:
    """A trial without the key of its design, in a run that came to its end and in one that did not."""
    folder = copied(finished[0], tmp_path)
    if not ended:
        (folder / "result.json").unlink()
    lines = (folder / "study.journal").read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"user_attr":{"key":' not in line]
    assert len(kept) < len(lines)
    (folder / "study.journal").write_text("".join(kept))
    assert "trial 0 of the study is damaged" in refusal(again(finished[0], out=folder))


def test_a_run_that_another_process_writes_is_left_to_it(ask: Ask, tmp_path: Path) -> None:
    with claim(tmp_path / "run", "search"):
        for resume in (False, True):
            line = refusal(ask(tmp_path / "run", resume=resume))
            assert f"{tmp_path / 'run'} is in use by edgemtl search, process {os.getpid()} on " in line
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".edgemtl.lock"]


def test_ctrl_c_leaves_a_usable_result_and_the_search_goes_on(ask: Ask, tmp_path: Path, home: Path) -> None:
    request = ask(tmp_path / "run", strategy="random", preference="kind=2")
    assert stopped_by(request, "SIGINT", home) != 0
    usable, folder = read_result(request.out), RunFolder(request.out)
    assert usable.evaluations == 2
    assert usable.best is not None
    assert dict(folder.load().design) == dict(usable.best.design)
    events: list[Progress] = []
    result = search(again(request), events.append)
    assert [event.done for event in events if event.stage == "search"] == [3, 4]
    assert result.evaluations == 4
    assert folder.names() == sorted(str(entry.name) for entry in result.front)


def test_a_full_disk_is_told_and_the_search_goes_on_once_there_is_space(ask: Ask, small_disk: Path) -> None:
    request = ask(small_disk / "run", evaluations=2)
    with pytest.raises((UserError, OSError), match="No space left on device"):
        search(request)
    assert not (request.out / "result.json").exists()
    assert not [path for path in request.out.rglob("*") if path.name.startswith(".")]
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    result = search(again(request))
    assert result.evaluations == 2
    assert RunFolder(request.out).names() == sorted(str(entry.name) for entry in result.front)


def interrupt_at(stage: str) -> Callable[[Progress], None]:
    def report(event: Progress) -> None:
        if event.stage == stage:
            raise KeyboardInterrupt

    return report


@pytest.mark.parametrize(("stage", "left"), [("preflight", False), ("score", True)])
def test_ctrl_c_before_and_after_the_evaluations(ask: Ask, tmp_path: Path, stage: str, left: bool) -> None:
    request = ask(tmp_path / "run", evaluations=2)
    with pytest.raises(KeyboardInterrupt):
        search(request, interrupt_at(stage))
    assert request.out.exists() == left
    assert not (request.out / "result.json").exists()
    assert search(again(request)).evaluations == 2


def test_ctrl_c_among_the_finalists_leaves_a_usable_result(ask: Ask, tmp_path: Path) -> None:
    request = ask(tmp_path / "run", evaluations=2)
    with pytest.raises(KeyboardInterrupt):
        search(request, interrupt_at("finalists"))
    usable = read_result(request.out)
    assert usable.best is not None
    assert dict(RunFolder(request.out).load().design) == dict(usable.best.design)
    events: list[Progress] = []
    assert search(again(request), events.append).evaluations == 2
    assert "finalists" in {event.stage for event in events}  # the refinement is made up for
    assert search(again(request)) == read_result(request.out)


def validated(request: SearchRequest, name: str) -> dict[str, dict[str, float]]:
    """Scores of a kept design on the validation images, computed anew."""
    source = open_source(request.data, (64, 64))
    where = load_space(request.space, source.tasks)
    supernet = Supernet.of(where)
    assert request.supernet is not None
    load_supernet(supernet, request.supernet, where.fingerprint)
    target = find_target(RunFolder(request.out).config().target)
    evaluator = Evaluator(source, target, measurer_of(target), [""], supernet=supernet)
    return evaluator.simulated(RunFolder(request.out).load(name))


def test_limits_in_ms_for_one_task_and_a_floor(ask: Ask, tmp_path: Path) -> None:
    request = ask(
        tmp_path / "run", budgets=("300%ms", "depth:80%FLOPs", "depth:20ms"), floors=("depth=10%",), evaluations=2
    )
    events: list[Progress] = []
    result = search(request, events.append)
    whole, path, own = next(event.rows for event in events if event.rows)
    assert (whole.limit, path.limit, own.limit) == pytest.approx((3 * whole.largest, 0.8 * path.largest, 20))
    assert min(own.smallest, whole.smallest) > 0
    assert result.best is not None
    assert result.best.latency_ms is not None
    assert result.best.paths["depth"].flops <= path.limit
    best, base = (validated(request, name)["depth"]["rmse"] for name in ("best", "baseline"))
    assert result.feasible == (result.best.latency_ms.value <= whole.limit and best <= 1.1 * base + 1e-9)
    assert RunFolder(request.out).config().floors == ("depth=10%",)


def test_a_runtime_in_the_budget_is_the_target(ask: Ask, tmp_path: Path) -> None:
    result = search(ask(tmp_path / "run", budgets=("500ms@host/openvino",), evaluations=2))
    assert result.feasible
    assert result.best is not None
    assert result.best.latency_ms is not None
    assert result.best.latency_ms.runtime == "openvino"
    assert RunFolder(tmp_path / "run").config().target == "openvino"


def test_a_target_that_does_not_run_here_is_searched_by_flops(ask: Ask, tmp_path: Path) -> None:
    events: list[Progress] = []
    result = search(ask(tmp_path / "run", target="tensorrt-rtx", evaluations=2), events.append)
    assert result.feasible
    texts = [event.text for event in events if event.stage == "search"]
    assert texts and all(" MFLOPs" in text for text in texts), "nets of less than ten million have an amount too"
    assert all(entry.latency_ms is None for entry in result.front)
    line = refusal(ask(tmp_path / "other", target="tensorrt-rtx", budgets=("8ms",)))
    assert "target tensorrt-rtx does not run on this host; give FLOPs or MB" in line


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"space": "tiny2"}, "unknown space 'tiny2': did you mean tiny"),
        ({"data": "scense"}, "unknown data set 'scense': did you mean scenes?"),
        ({"target": "openvin"}, "unknown target 'openvin': did you mean openvino"),
        ({"strategy": "lina"}, "unknown strategy 'lina': did you mean linas"),
        ({"settings": {"steps": 5}}, "unknown setting of strategy linas: 'steps': allowed: generations"),
        (
            {"settings": {"generations": "few"}},
            "setting generations of strategy linas cannot be 'few': Input",
        ),
        ({"settings": {"generations": 0}}, "0 generations given: strategy linas needs 1 or more"),
        ({"budgets": ("8ms@hots",)}, "unknown device 'hots': did you mean host"),
        ({"budgets": ("8ms@host/openvin",)}, "did you mean openvino"),
        ({"budgets": ("8ms@host/openvino", "9ms@host/onnxruntime")}, "name the runtimes onnxruntime and openvino"),
        (
            {"budgets": ("8ms@host/openvino",), "target": "onnxruntime"},
            "budgets and target name the runtimes onnxruntime and openvino",
        ),
        ({"budgets": ("8ms@x86-avx2",)}, "device x86-avx2 states no bandwidth"),
        ({"budgets": ("20mJ",)}, "a search has no limits in energy"),
        ({"budgets": ("2 GFLOP",)}, "no space belongs between number and unit"),
        ({"budgets": ("dept:1GFLOPs",)}, "'dept': did you mean depth"),
        ({"budgets": ("1kFLOPs",)}, "allows 1.00 kFLOPs (500 MACs), but the smallest design of space tiny takes 1."),
        ({"budgets": ("80%FLOPs", "1B")}, "budget '1B' allows 1.00 B, but the smallest design of space tiny takes "),
        ({"budgets": ("depth:1kMACs",)}, "but the smallest design of space tiny takes "),
        ({"budgets": ("1us",)}, "budget '1us' allows 0.00100 ms, but the smallest design of space tiny takes "),
        ({"floors": ("dept=2%",)}, "unknown task in floor 'dept': did you mean depth"),
        ({"preference": "depth=much"}, "write TASK=WEIGHT"),
        ({"size": (100, 100)}, "both sides must be positive multiples of 32"),
        ({"evaluations": 1}, "--evaluations 1: a search needs 2 or more"),
        ({"finetune": -1}, "--finetune -1: give the steps that finalists are trained for, 0 for none"),
        ({"processes": 0}, "0 training processes given: give 1 or more"),
        ({"seed": -1}, "seed -1 cannot be used: give a number from 0"),
        ({"threads": -1}, "-1 threads given"),
        ({"supernet": None}, "no supernet ships for space tiny and data photos: train one with `edgemtl train"),
        ({"supernet": Path("nowhere.safetensors")}, "cannot read supernet nowhere.safetensors: No such file"),
        ({"storage": "nonsense"}, "--storage 'nonsense' is of no kind that is known"),
        ({"objectives": ("delta_m", "latncy")}, "unknown objective 'latncy': did you mean latency"),
    ],
)
def test_what_cannot_be_met_or_understood_is_one_line_and_nothing_is_written(
    ask: Ask, tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    assert expected in refusal(ask(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_a_shared_study_of_something_else_is_one_line(ask: Ask, home: Path, tmp_path: Path) -> None:
    changes = {"storage": f"journal://{tmp_path / 'studies.journal'}", "target": "tensorrt-rtx", "strategy": "random"}
    first = search(ask(tmp_path / "a" / "run", evaluations=2, **changes))
    events: list[Progress] = []
    joined = search(ask(tmp_path / "b" / "run", evaluations=2, **changes), events.append)
    assert joined.front == first.front
    assert not [event for event in events if event.stage == "search"], "everything was evaluated by the first"
    line = refusal(ask(tmp_path / "c" / "run", budgets=("70%FLOPs",), **changes))
    assert line.startswith("study 'run' in --storage is of another budgets (80%FLOPs, here 70%FLOPs): ask for the same")
    (tmp_path / "nas").mkdir()
    wide = tmp_path / "nas" / "wide.yaml"
    wide.write_text(TINY.replace("[8, 16, 24]", "[8, 24]"))
    weights = write_supernet(load_space(str(wide), TASKS), tmp_path / "wide.safetensors")
    line = refusal(ask(tmp_path / "c" / "run", space=str(wide), supernet=weights, **changes))
    assert f"study 'run' in --storage is of another space (tiny, here {wide})" in line


def test_a_result_of_the_designs_so_far_is_not_ended_by_another_worker(ask: Ask, tmp_path: Path) -> None:
    changes = {"storage": f"journal://{tmp_path / 'studies.journal'}", "target": "tensorrt-rtx", "strategy": "random"}
    first = ask(tmp_path / "a" / "run", evaluations=3, **changes)
    with pytest.raises(KeyboardInterrupt):
        search(first, interrupt_at("search"))
    assert read_result(first.out).evaluations == 1
    others = search(ask(tmp_path / "b" / "run", evaluations=3, **changes))
    resumed = search(again(first))
    assert (resumed.evaluations, resumed.front) == (3, others.front)
    assert search(again(first)) == resumed


def test_a_study_that_nobody_began_is_begun_and_one_of_something_else_is_refused(ask: Ask, tmp_path: Path) -> None:
    """A worker that is killed once it has made the study has not said yet what that is of."""
    changes = {"storage": f"journal://{tmp_path / 'studies.journal'}", "target": "tensorrt-rtx", "strategy": "random"}
    storage = open_storage(tmp_path, changes["storage"])
    open_study("run", storage)
    assert search(ask(tmp_path / "run", evaluations=2, **changes)).evaluations == 2
    open_study("other", storage).add_trial(create_trial(values=[0.0, 0.0]))
    line = refusal(ask(tmp_path / "other", evaluations=2, **changes))
    assert line == "study 'other' in --storage is none that edgemtl began: choose an --out with another name"


def test_a_folder_with_something_else_is_left_alone(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    assert "is not empty and holds no run: choose another --out" in refusal(ask(tmp_path / "mine"))
    assert "is a file, a folder is wanted: choose another --out" in refusal(ask(tmp_path / "mine" / "thesis.tex"))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


@pytest.fixture(scope="module")
def damaged(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Supernet files that are not what is wanted."""
    folder = tmp_path_factory.mktemp("damaged")
    content = (home / "supernet.safetensors").read_bytes()
    (folder / "truncated").write_bytes(content[: len(content) // 2])
    (folder / "header").write_bytes(content[:40])
    (folder / "empty").write_bytes(b"")
    (folder / "text").write_text("<html>not found</html>")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (folder / f"pickle{protocol}").write_bytes(pickle.dumps({"weights": [1.0] * 100}, protocol))
    torch.save({"weights": torch.zeros(9)}, folder / "torch")
    other = load_space(str(write_space(folder, "other", TINY.replace("[8, 16, 24]", "[8, 24]"))), TASKS)
    write_supernet(other, folder / "other")
    write_supernet(space(folder, PAIR), folder / "tasks")
    return folder


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("truncated", "truncated or damaged"),
        ("header", "truncated"),
        ("empty", "truncated or damaged, or is no safetensors file"),
        ("text", "truncated or damaged, or is no safetensors file"),
        ("torch", "is a pickle, which could run code: a safetensors file is wanted"),
        ("pickle0", "truncated or damaged, or is no safetensors file"),
        *((f"pickle{protocol}", "is a pickle, which could run code") for protocol in (2, 3, 4, 5)),
        ("other", "was trained for space 'other' and tasks depth, kind, not for these"),
        ("tasks", "was trained for space 'tiny' and tasks semseg, depth, not for these"),
    ],
)
def test_a_supernet_that_cannot_be_used_is_named(
    ask: Ask, tmp_path: Path, damaged: Path, name: str, expected: str
) -> None:
    line = refusal(ask(tmp_path / "run", supernet=damaged / name))
    assert f"supernet {damaged / name}" in line
    assert expected in line
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:Encountered `nan`")
def test_a_supernet_whose_training_diverged_is_told_before_the_search(ask: Ask, tmp_path: Path, home: Path) -> None:
    where = load_space("tiny", TASKS)
    supernet = Supernet.of(where)
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.fill_(float("nan"))
    save_supernet(supernet, tmp_path / "nan", {"fingerprint": where.fingerprint})
    assert "holds NaN or infinity" in refusal(ask(tmp_path / "run", supernet=tmp_path / "nan"))


def test_a_split_without_labels_of_a_task_is_told_before_the_search(ask: Ask, tmp_path: Path) -> None:
    photos = write_data(tmp_path / "photos")
    (photos / "data.yaml").write_text((photos / "data.yaml").read_text().replace("scale", "partial: true, scale"))
    for path in (photos / "depth" / "test").iterdir():
        Image.new("I;16", (64, 64)).save(path)
    line = refusal(ask(tmp_path / "run", data=str(photos)))
    assert "data set photos: no test image that is scored has a valid label of task 'depth'" in line
