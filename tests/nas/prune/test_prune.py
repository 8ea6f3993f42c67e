from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_world import VIT

from edgemtl.data import open_source
from edgemtl.errors import UserError
from edgemtl.export import ExportRequest, export_run
from edgemtl.models import MultiTaskNet
from edgemtl.nas.prune import PRUNING_FILE, PruneRequest, RunDesign, prune
from edgemtl.nas.prune import criterion as judging
from edgemtl.nas.runs import TUNING, RunFolder, fine_tune, recipe_for
from edgemtl.nas.search import SearchRequest, search
from edgemtl.progress import Progress
from edgemtl.results import read_result
from edgemtl.spaces import load_space
from edgemtl.testing.landscape import write_space
from edgemtl.testing.world import write_supernet

WIDE = """\
schema: edgemtl.space/1
family: cnn
input: [64, 64]
precision: [float, int8]
cnn:
  stem: {width: [16]}
  stages:
    - {name: s1, stride: 2, width: [16, 24], depth: [1, 2], block: [fused], expand: [2]}
    - {name: s2, stride: 2, width: [24, 32], depth: [1, 2], block: [depthwise, fused], expand: [2]}
  features: [s1, s2]
  decoder: {width: [16, 32], depth: [1]}
"""


def searched(home: Path, out: Path, name: str, space: str) -> Path:
    """A run in a space that is written down in `home`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        write_space(home, name, space)
        tasks = open_source("photos", (64, 64)).tasks
        supernet = write_supernet(load_space(name, tasks), home / f"{name}.safetensors")
        few: dict[str, Any] = {"space": name, "data": "photos", "evaluations": 2, "batch": 2, "threads": 1}
        few["finetune"] = 0
        search(SearchRequest(out, ("100%FLOPs",), supernet=supernet, **few))
    return out


@pytest.fixture(scope="module")
def run(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search in a space with channels to spare."""
    return searched(home, tmp_path_factory.mktemp("runs") / "first", "wide", WIDE)


@pytest.fixture
def ask(run: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PruneRequest:
    """A request to prune the largest design; the working directory is where the space lies."""
    monkeypatch.chdir(home)
    return PruneRequest(RunDesign(run, "baseline"), tmp_path / "pruned", ("50%FLOPs",), fast=True)


def rows(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / PRUNING_FILE).read_text())["groups"]
    return found


@pytest.mark.parametrize("fast", [True, False])
def test_a_pruned_design_keeps_its_budget_and_is_a_run_like_any_other(
    ask: PruneRequest, tmp_path: Path, fast: bool
) -> None:
    result = prune(replace(ask, fast=fast))
    unpruned, pruned = RunFolder(ask.out).load("baseline"), RunFolder(ask.out).load()
    whole = unpruned.design.cost().flops
    assert result.best is not None
    assert 0.4 * whole < result.best.flops <= 0.5 * whole
    assert result.best.flops == pruned.design.cost().flops
    assert (result.strategy, result.best.design) == ("prune", pruned.design.as_json())
    assert read_result(ask.out) == result
    shapes = {name: v.shape for name, v in pruned.net.state_dict().items()}
    fresh = MultiTaskNet(pruned.design.plan, pruned.net.tasks)
    assert shapes == {name: v.shape for name, v in fresh.state_dict().items()}
    assert all(row["after"] % 8 == 0 and row["after"] <= row["before"] for row in rows(ask.out))
    assert {row["blocked_by"] for row in rows(ask.out)} <= {None, "depth", "kind"}
    assert all(row["blocked_by"] in [*row["tasks"], None] for row in rows(ask.out))
    manifest = export_run(ask.out, ExportRequest("onnxruntime"), tmp_path / "bundle")
    assert manifest.cost.flops == result.best.flops
    assert manifest.cost.params == result.best.params


def test_a_transformer_loses_heads_and_width_of_tokens(ask: PruneRequest, home: Path, tmp_path: Path) -> None:
    vit = searched(home, tmp_path / "vit", "small-vit", VIT)
    result = prune(replace(ask, subject=RunDesign(vit, "baseline"), budgets=("52%params",)))
    assert result.best is not None
    assert result.best.params <= 0.52 * result.front[-1].params
    kept = {row["group"]: (row["before"], row["after"]) for row in rows(ask.out)}
    assert {"patches.proj", "b1.attention", "b2.attention"} <= kept.keys()
    assert kept["patches.proj"] == (16, 8)
    manifest = export_run(ask.out, ExportRequest("onnxruntime"), tmp_path / "bundle")
    assert manifest.cost.flops == result.best.flops


def test_a_second_budget_needs_no_second_map(ask: PruneRequest, tmp_path: Path) -> None:
    prune(ask)
    measured = list[str]()

    def hear(event: Progress) -> None:
        if event.stage == "map" and event.text:
            measured.append(event.text)

    result = prune(replace(ask, out=tmp_path / "other", budgets=("60%params",)), hear)
    assert measured == []
    assert result.best is not None
    assert result.best.params <= 0.6 * result.front[-1].params


def test_a_pruning_that_was_killed_goes_on_with_what_it_tried(ask: PruneRequest, tmp_path: Path) -> None:
    request = replace(ask, fast=False)

    def stop(event: Progress) -> None:
        if event.stage == "trial" and event.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune(request, stop)
    tried = (ask.out / "trials.jsonl").read_text()
    with pytest.raises(UserError, match="go on with --resume"):
        prune(request)
    (ask.out / "trials.jsonl").write_text(tried + '{"key": "cut sho')
    result = prune(replace(request, resume=True))
    assert (ask.out / "trials.jsonl").read_text().startswith(tried)
    again = prune(replace(request, out=tmp_path / "whole"))
    assert result.best is not None
    assert again.best is not None
    assert result.best.design == again.best.design
    with pytest.raises(UserError, match="another pruned"):
        prune(replace(request, resume=True, fast=True))


def test_a_pruned_design_learns_from_the_unpruned_one(ask: PruneRequest, tmp_path: Path) -> None:
    before = prune(ask)
    assert recipe_for(ask.out) == TUNING
    recipe = replace(TUNING, steps=40, batch=4, sizes=(1.0,), learning_rate=5e-3, average=0.9, bf16=False)
    after = fine_tune(ask.out, tmp_path / "tuned", recipe)
    assert before.best is not None
    assert after.best is not None
    assert after.best.design == before.best.design
    assert after.best.metrics["depth"]["rmse"] < 0.9 * before.best.metrics["depth"]["rmse"]
    assert after.front[-1].metrics == before.front[-1].metrics


def test_precision_is_chosen_after_pruning_and_kept_by_it(ask: PruneRequest, tmp_path: Path) -> None:
    prune(replace(ask, subject=replace(ask.subject, precisions=True)))
    pruned = RunFolder(ask.out).load()
    again = replace(ask, subject=RunDesign(ask.out), out=tmp_path / "again", budgets=("80%FLOPs",))
    prune(again)
    twice = RunFolder(again.out).load()
    assert twice.design.precision == pruned.design.precision
    assert twice.design.cost().flops <= 0.8 * pruned.design.cost().flops
    assert dict(pruned.design.pruned).keys() <= dict(twice.design.pruned).keys()


def test_a_budget_in_ms_is_met_on_the_engine(ask: PruneRequest) -> None:
    prune(replace(ask, budgets=("300%ms",)))
    assert RunFolder(ask.out).load().design.cost().flops > 0.9 * RunFolder(ask.out).load("baseline").design.cost().flops


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"budgets": ("1%FLOPs",)}, r"pruning reaches .* at the least"),
        ({"budgets": ("0.001ms",)}, r"pruning reaches .* ms at the least"),
        ({"budgets": ()}, "no budget"),
        ({"budgets": ("dept:1MFLOPs",)}, "did you mean depth"),
        ({"budgets": ("8ms@host/openvino",)}, "engines of onnxruntime"),
        ({"floors": ("dept=2%",)}, "did you mean depth"),
        ({"subject": {"design": "bset"}}, "unknown design"),
        ({"subject": {"run": Path("nothing")}}, "is no run"),
    ],
)
def test_what_cannot_be_pruned_is_refused_and_leaves_nothing(
    ask: PruneRequest, changes: dict[str, Any], says: str
) -> None:
    changes = {**changes, "subject": replace(ask.subject, **changes.get("subject", {}))}
    with pytest.raises(UserError, match=says):
        prune(replace(ask, **changes))
    assert not ask.out.exists()


def test_a_floor_that_is_broken_before_pruning_is_refused(ask: PruneRequest, run: Path, tmp_path: Path) -> None:
    worse = tmp_path / "worse"
    shutil.copytree(run, worse)
    kept = RunFolder(worse).load("baseline")
    with torch.no_grad():
        for name, parameter in kept.net.named_parameters():
            if name.startswith("blocks.depth_head"):
                parameter += 0.5
    RunFolder(worse).save("best", kept)
    with pytest.raises(UserError, match=r"floor depth=2%: design best has lost .* before anything is pruned"):
        prune(replace(ask, subject=RunDesign(worse), floors=("depth=2%",)))


def test_a_task_without_labels_to_decide_by_is_named(ask: PruneRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def unlabelled(criterion: judging.LossCriterion) -> Any:
        batches = list(judging.batches_of(criterion.source.split("calibration"), 4, tasks=criterion.source.tasks))
        return [replace(b, masks={name: mask & (name != "depth") for name, mask in b.masks.items()}) for b in batches]

    monkeypatch.setattr(judging.LossCriterion, "_batches", property(unlabelled))
    with pytest.raises(UserError, match="no calibration image has a valid label of task 'depth'"):
        prune(ask)


def test_a_damaged_map_says_so(ask: PruneRequest, run: Path) -> None:
    prune(ask)
    file = run / "designs" / "baseline" / "prune_map.json"
    whole = file.read_text()
    content = json.loads(whole)
    content["orders"] = {name: [[0, 0]] for name in content["orders"]}
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="is damaged"):
        prune(replace(ask, out=ask.out.with_name("second")))
    file.write_text(whole)
