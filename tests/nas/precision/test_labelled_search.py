"""A search by labels: floors are of each task's own metric, and all validation images decide."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chain import in_process, make_workplace
from own_nets import regions_and_sides, saved
from PIL import Image

from edgemtl.data import open_source
from edgemtl.files.images import normalize
from edgemtl.own import Spread, at_label_size, open_net
from edgemtl.train import Scorer

SIZE = (64, 64)
TASKS = """
tasks:
  regions: {kind: segmentation, outputs: [regions]}
  side: {kind: classification, outputs: [side]}
"""
SEARCH = ("search", "theirs.onnx", "--tasks", "tasks.yaml", "--data", "data/data.yaml")
LOOSE = ("--floor", "regions=90%", "--floor", "side=90%")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    make_workplace(folder)
    saved(regions_and_sides(), folder)
    (folder / "tasks.yaml").write_text(TASKS)
    return folder


def own_scores(workplace: Path, split: Any) -> dict[str, dict[str, float]]:
    """Metrics of the file itself, in plain ONNX Runtime."""
    net, source = open_net(str(workplace / "theirs.onnx")), open_source(str(workplace / "data"), SIZE)
    tasks = [task for task in source.tasks if task.name != "depth"]
    scorer = Scorer(tasks)
    for sample in source.split(split):
        given = net.reference(normalize(sample.image[None]))
        outputs = {task.name: {"logits": given[task.name]} for task in tasks}
        scorer.update(at_label_size(tasks, outputs, SIZE), [sample])
    return scorer.compute()


def test_floors_and_scores_are_of_each_tasks_own_metric(workplace: Path) -> None:
    words = (*SEARCH, "--floor", "regions=30%", "--floor", "side.accuracy>0.01", "--out", "runs/a")
    process = in_process(workplace, *words, "--format", "json")
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert result["known_from"]["scores"] == "each task's own metrics, by labels of data"
    assert result["known_from"]["limits"].startswith("each task's own metric on 6 images")
    assert result["data"] == {**result["data"], "name": "data", "scored_on": "6 test images"}
    own, base = own_scores(workplace, "test"), result["front"][-1]
    assert base["name"] == "baseline" and base["delta_m"] == 0
    for task, scores in own.items():
        assert base["metrics"][task] == pytest.approx(scores, abs=1e-4)
    limits = {check["text"]: check for check in base["limits"]}
    assert {text: check["metric"] for text, check in limits.items()} == {
        "regions=30%": "miou",
        "side.accuracy>0.01": "accuracy",
    }
    validation = own_scores(workplace, "validation")
    assert limits["side.accuracy>0.01"]["value"] == pytest.approx(validation["side"]["accuracy"])
    scored = json.loads((workplace / "runs/a/agreements.json").read_text())
    assert set(scored["scores"]["fp32"]["regions"]) == set(own["regions"])
    assert {len(name.split()) for name in scored["agreements"]} == {2}, "blocks alone are compared with the float net"
    shown = in_process(workplace, *words, "--resume").stdout
    assert "scores: each task's own metrics, by labels of data" in shown and "regions miou" in shown
    export = ("export", "theirs.onnx", "--tasks", "tasks.yaml", "--precision", "runs/a", "--target", "onnxruntime")
    exported = in_process(workplace, *export, "--data", "data/data.yaml", "--out", "bundle", "--format", "json")
    assert exported.returncode == 0, exported.stderr
    parity = json.loads((workplace / "bundle/manifest.json").read_text())["targets"]["onnxruntime"]["parity"]
    for task, each in parity.items():
        assert each["engine"] == pytest.approx(result["best"]["metrics"][task][each["metric"]], abs=1e-9)


def test_channels_go_under_floors_of_labels(workplace: Path) -> None:
    words = (*SEARCH, *LOOSE, "--budget", "70%FLOPs", "--finetune", "2", "--out", "runs/b", "--format", "json")
    process = in_process(workplace, *words)
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert result["strategy"] == "pruning and precision" and result["feasible"]
    assert result["best"]["flops"] <= 0.7 * result["front"][-1]["flops"]
    assert set(result["best"]["metrics"]["side"]) == {"accuracy"} | set(own_scores(workplace, "test")["side"])
    assert {check["metric"] for check in result["best"]["limits"] if check["kind"] == "floor"} == {"miou", "accuracy"}


@pytest.mark.slow
def test_a_strategy_goes_by_floors_of_labels_and_budgets_in_ms(workplace: Path) -> None:
    words = (*SEARCH, *LOOSE, "--budget", "70%FLOPs", "--budget", "side:500%ms", "--threads", "1", "--out", "runs/d")
    strategy = ("--strategy", "linas", "--evaluations", "13", "--finetune", "2")
    process = in_process(workplace, *words, *strategy, "--format", "json")
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert result["strategy"] == "linas" and result["feasible"]
    assert result["best"]["flops"] <= 0.7 * result["front"][-1]["flops"]
    assert {check["metric"] for check in result["best"]["limits"] if check["kind"] == "floor"} == {"miou", "accuracy"}
    assert {check["text"] for check in result["best"]["limits"]} >= {"70%FLOPs", "side:500%ms"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tasks": TASKS.replace("side:", "sides:")}, "task of the net 'sides'"),
        ({"tasks": TASKS.replace("classification", "raw")}, "is of kind raw in the tasks file, and of kind classif"),
        ({"floor": "regions>0.99"}, "floor regions.miou>0.99: the net in float has miou 0."),
        ({"floor": "depth=1%"}, "unknown task in floor 'depth': allowed: regions, side"),
        ({"ignored": "validation"}, "no validation image has a valid label of task regions"),
        ({"ignored": "test"}, "no test image has a valid label of task regions"),
    ],
)
def test_labels_and_floors_that_do_not_fit_are_one_line(
    workplace: Path, tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    make_workplace(tmp_path)
    saved(regions_and_sides(), tmp_path)
    (tmp_path / "tasks.yaml").write_text(changes.get("tasks", TASKS))
    for file in (tmp_path / "data/regions").glob(f"{changes.get('ignored', 'none')}*.png"):
        Image.new("L", SIZE, 255).save(file)
    process = in_process(tmp_path, *SEARCH, "--floor", changes.get("floor", "regions=5%"), "--out", "runs/c")
    lines = [line for line in process.stderr.splitlines() if words in line]
    assert process.returncode == 1 and len(lines) == 1, process.stderr
    assert not (tmp_path / "runs/c/config.json").exists()


def test_images_are_spread_over_all_and_read_when_they_are_wanted() -> None:
    assert list(Spread(range(10), 4)) == [0, 2, 5, 7]
    assert list(Spread(range(3), 4)) == [0, 1, 2] and len(Spread([], 4)) == 0
    with pytest.raises(IndexError):
        Spread(range(10), 4)[4]
