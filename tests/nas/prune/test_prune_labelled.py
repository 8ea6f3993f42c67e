"""Nets of one's own with declared tasks are pruned by labels: floors and scores are of each task's own metric."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chain import in_process, make_workplace
from own_nets import regions_and_sides, saved

from edgemtl.data import open_source
from edgemtl.files.images import normalize
from edgemtl.own import at_label_size, open_net
from edgemtl.train import Scorer

TASKS = """
tasks:
  regions: {kind: segmentation, outputs: [regions]}
  side: {kind: classification, outputs: [side]}
"""
PRUNE = ("prune", "theirs.onnx", "--tasks", "tasks.yaml", "--data", "data/data.yaml", "--fast")


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    make_workplace(tmp_path)
    saved(regions_and_sides(), tmp_path)
    (tmp_path / "tasks.yaml").write_text(TASKS)
    return tmp_path


def test_a_file_is_pruned_by_labels_and_scored_by_its_own_metrics(workplace: Path) -> None:
    words = (*PRUNE, "--budget", "70%FLOPs", "--floor", "regions=90%", "--floor", "side.accuracy>0.01")
    process = in_process(workplace, *words, "--finetune", "2", "--out", "runs/a", "--format", "json")
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    assert result["known_from"]["scores"] == "each task's own metrics, by labels of data"
    assert result["best"]["flops"] <= 0.7 * result["front"][-1]["flops"]
    source = open_source(str(workplace / "data"), (64, 64))
    tasks = [task for task in source.tasks if task.name != "depth"]
    for entry, file in ((result["front"][-1], "theirs.onnx"), (result["best"], "runs/a/net.onnx")):
        net, scorer = open_net(str(workplace / file)), Scorer(tasks)
        for sample in source.split("test"):
            given = net.reference(normalize(sample.image[None]))
            outputs = {task.name: {"logits": given[task.name]} for task in tasks}
            scorer.update(at_label_size(tasks, outputs, (64, 64)), [sample])
        for task, scores in scorer.compute().items():
            assert entry["metrics"][task] == pytest.approx(scores, abs=1e-3)
    left = in_process(workplace, "export", "runs/a/net.onnx", "--tasks", "runs/a/tasks.yaml", "--target", "onnxruntime",
                      "--out", "bundle")  # fmt: skip
    assert left.returncode == 0, left.stderr


def test_what_is_left_learns_from_labels_what_the_whole_net_never_knew(workplace: Path) -> None:
    words = (*PRUNE, "--budget", "90%FLOPs", "--floor", "regions=90%", "--floor", "side=90%")
    process = in_process(workplace, *words, "--finetune", "200", "--out", "runs/a", "--format", "json")
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout)
    best, whole = (entry["metrics"]["regions"]["miou"] for entry in (result["best"], result["front"][-1]))
    assert best > whole + 0.05, "its weights are random: from itself alone nothing better could be learnt"


def test_the_table_says_what_scores_are_of(workplace: Path) -> None:
    shown = in_process(workplace, *PRUNE, "--budget", "80%FLOPs", "--out", "runs/b")
    assert shown.returncode == 0, shown.stderr
    assert "scores: each task's own metrics, by labels of data" in shown.stdout and "regions miou" in shown.stdout
    photos = (*PRUNE[:4], "--data", "data/images/train", "--fast")
    unlabelled = in_process(workplace, *photos, "--budget", "80%FLOPs", "--out", "runs/c")
    assert unlabelled.returncode == 0, unlabelled.stderr
    assert "scores: agreement with the net as it was, on pictures without labels" in unlabelled.stdout


@pytest.mark.parametrize(
    ("data", "floor", "words"),
    [
        ("data/data.yaml", "regions>0.99", "floor regions.miou>0.99: the net has miou 0."),
        ("data/images/train", "regions.miou>0.1", "give a data set with labels"),
        ("data/three.yaml", "regions=5%", "have 3 channels or classes, the output of the net has 2"),
    ],
)
def test_labels_and_floors_that_do_not_fit_are_one_line(workplace: Path, data: str, floor: str, words: str) -> None:
    text = (workplace / "data/data.yaml").read_text()
    (workplace / "data/three.yaml").write_text(text.replace("[dark, bright]", "[dark, bright, other]"))
    words_given = (*PRUNE[:4], "--data", data, "--fast", "--budget", "80%FLOPs", "--floor", floor)
    process = in_process(workplace, *words_given, "--out", "runs/d")
    lines = [line for line in process.stderr.splitlines() if words in line]
    assert process.returncode == 1 and len(lines) == 1, process.stderr
