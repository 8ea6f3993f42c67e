"""Nets of one's own are pruned without labels: an ONNX file and a module, by their agreement with themselves."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from own_nets import SIZE, residual_net, saved, write_photos
from PIL import Image

from edgemtl.errors import UserError
from edgemtl.export import ExportRequest, export_own_net
from edgemtl.nas.prune import DeclaredModule, FineTuning, PruneRequest, apply_pruning, prune
from edgemtl.own import as_text, open_net, propose_tasks, read_declaration, torch_graph
from edgemtl.progress import Progress

TASKS = """
input: {mean: [0, 0, 0], std: [1, 1, 1], colour: BGR}
tasks:
  map: {kind: raw, outputs: [map]}
  pose: {kind: raw, outputs: {points: pose.points, score: pose.score}}
"""
MINE = """
import torch
from torch import nn


class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.unit = nn.Conv2d(24, 24, 3, 1, 1)
        self.map, self.points = nn.Conv2d(24, 2, 1), nn.Linear(24, 4)

    def forward(self, image):
        trunk = self.stem(image)
        trunk = trunk + self.unit(trunk).relu()
        points = self.points(trunk.mean((2, 3)))
        return {"map": self.map(trunk), "pose": {"points": points, "score": points.sigmoid()}}


class Varying(Mine):
    def forward(self, image):
        return super().forward(nn.functional.dropout(image, 0.5, training=True))


class Conditional(Mine):
    def forward(self, image):
        return super().forward(2 * image if image.mean() > 0 else image)


class Gained(Mine):
    # A factor of its own for each channel, and one number an image, without an axis for it.

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.linspace(0.5, 1.5, 24)[:, None, None])

    def forward(self, image):
        trunk = self.gain * self.stem(image)
        return {"map": self.map(trunk), "age": self.points(trunk.mean((2, 3)))[:, 0]}


class Recurrent(Mine):
    def __init__(self):
        super().__init__()
        self.rows = nn.GRU(24, 24, batch_first=True)

    def forward(self, image):
        trunk = self.stem(image)
        points = self.points(self.rows(trunk.mean(2).transpose(1, 2))[0].mean(1))
        return {"map": self.map(trunk), "pose": {"points": points, "score": points.sigmoid()}}


def build(kind=Mine):
    torch.manual_seed(0)
    return kind().eval()


def varying(): return build(Varying)
def conditional(): return build(Conditional)
def another(): return Mine().eval()
def recurrent(): return build(Recurrent)
def gained(): return build(Gained), {"gain": 0}


def train_step(module, images, step):
    assert module.training and images.min() >= 0
    return module(images)["map"].square().mean()
"""


@pytest.fixture
def request_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PruneRequest:
    """A request to prune the file, on twelve pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEMTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    Path("tasks.yaml").write_text(TASKS)
    Path("mine.py").write_text(MINE)
    pictures = tmp_path / "pictures"
    pictures.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for number in range(12):
        small = Image.fromarray(generator.integers(0, 256, (5, 7, 3), np.uint8))
        small.resize((48, 40)).save(pictures / f"{number}.png")
    net = saved(residual_net(), tmp_path)
    subject = DeclaredModule(str(net), tmp_path / "tasks.yaml", str(tmp_path / "pictures"))
    return PruneRequest(subject, tmp_path / "out", ("60%FLOPs",), fast=True)


def image() -> np.ndarray:
    return np.random.default_rng(3).random((1, 3, *SIZE), np.float32)


def test_a_pruned_file_comes_back_as_a_file_as_a_module_and_as_a_bundle(request_: PruneRequest) -> None:
    steps: list[Progress] = []
    tuned = PruneRequest(request_.subject, request_.out, ("60%FLOPs",), ("pose=90%",), True, FineTuning(3, batch=2))
    result = prune(tuned, steps.append)
    assert result.best is not None and result.baseline is not None
    assert result.best.flops <= 0.6 * result.baseline.flops
    assert {*result.best.metrics} == {"map", "pose"} and {*result.best.metrics["map"]} == {"agreement"}
    assert result.baseline.metrics["map"]["agreement"] > 0.999 > result.best.metrics["map"]["agreement"]
    assert [each.done for each in steps if each.stage == "finetune"] == [1, 2, 3]
    groups = [each for each in steps if each.stage == "groups"]
    assert [each.done for each in groups] == list(range(1, len(groups) + 1)) and groups[-1].total == len(groups)
    record = json.loads((request_.out / "pruning.json").read_text())
    assert record["finetuned"]["steps"] == 3 and record["not_exported"] == ""
    assert {row["group"]: row["tasks"] for row in record["groups"]} == {"body.stem": ["map", "pose"],
                                                                        "body.narrow": ["pose"]}  # fmt: skip
    net = open_net(str(request_.out / "net.onnx"))
    whole = torch_graph(open_net(request_.subject.net))  # type: ignore[union-attr]
    narrow = apply_pruning(whole, request_.out)
    with torch.no_grad():
        given = narrow(torch.from_numpy(image()))
    for name, value in net.reference(image()).items():
        np.testing.assert_allclose(given[name].numpy(), value, rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in narrow.parameters()) == result.best.params
    declared = read_declaration(request_.out / "tasks.yaml")
    manifest = export_own_net(net, declared, ExportRequest(("onnxruntime",)), request_.out / "bundle")
    assert manifest.targets["onnxruntime"].modes_checked == 2


def test_a_module_with_declared_tasks_needs_no_labels_and_learns_by_its_own_step(request_: PruneRequest) -> None:
    subject = DeclaredModule("mine:build", request_.subject.tasks, request_.subject.data, SIZE)  # type: ignore[union-attr]
    tuning = FineTuning(2, "mine:train_step", batch=2)
    result = prune(PruneRequest(subject, request_.out, ("60%FLOPs",), fast=True, tuning=tuning))
    assert result.best is not None and result.baseline is not None
    assert result.best.flops <= 0.6 * result.baseline.flops
    import mine  # type: ignore[import-not-found]

    narrow = apply_pruning(mine.build(), request_.out)
    with torch.no_grad():
        given = narrow(torch.from_numpy(image()))["pose"]["points"]
    own = open_net(str(request_.out / "net.onnx")).reference(image())["pose.points"]
    np.testing.assert_allclose(given.numpy(), own, rtol=1e-4, atol=1e-5)


def test_a_module_may_come_with_dimensions_and_give_one_number_an_image(request_: PruneRequest, tmp_path: Path) -> None:
    """Dimensions are what a module with parameters outside of layers is refused without."""
    tasks = tmp_path / "gained.yaml"
    tasks.write_text("tasks: {map: {kind: raw, outputs: [map]}, age: {kind: raw, outputs: [age]}}")
    subject = DeclaredModule("mine:gained", tasks, request_.subject.data, SIZE)  # type: ignore[union-attr]
    result = prune(PruneRequest(subject, request_.out, ("60%FLOPs",), fast=True, tuning=FineTuning(2, batch=2)))
    assert result.best is not None and result.baseline is not None
    assert result.best.flops <= 0.6 * result.baseline.flops and {*result.best.metrics} == {"map", "age"}
    assert open_net(str(request_.out / "net.onnx")).outputs["age"] == (1,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"net": "mine:varying"}, "is random, so that outputs change from call to call"),
        ({"net": "mine:conditional"}, "control flow on values (mine.py, line"),
        ({"net": "mine:another"}, "its function must return the same trained module in each call"),
        ({"net": "mine:recurrent"}, "the dependency graph cannot follow rows, a GRU, whatever is declared"),
        ({"data": "few"}, "few holds 5 pictures"),
        ({"data": "damaged"}, "cannot be read"),
    ],
)
def test_what_cannot_be_pruned_is_told_in_a_line(
    request_: PruneRequest, changes: dict[str, str], words: str, tmp_path: Path
) -> None:
    (tmp_path / "few").mkdir()
    for number in range(5):
        Image.new("RGB", (8, 8)).save(tmp_path / "few" / f"{number}.png")
    (tmp_path / "damaged").mkdir()
    for number in range(9):
        (tmp_path / "damaged" / f"{number}.png").write_bytes(b"\x89PNG" + bytes([number]))
    given = {"net": request_.subject.net, "data": request_.subject.data, **changes}  # type: ignore[union-attr]
    subject = DeclaredModule(given["net"], Path("tasks.yaml"), given["data"], SIZE)
    with pytest.raises(UserError, match=re.escape(words)) as refusal:
        prune(PruneRequest(subject, request_.out, ("50%FLOPs",)))
    assert "\n" not in str(refusal.value)
    assert not request_.out.exists() or not any(request_.out.glob("*.json"))


def test_a_grey_module_is_opened_and_written_as_it_reads(tmp_path: Path) -> None:
    own = open_net("own_nets:build_grey", SIZE)
    (tmp_path / "tasks.yaml").write_text(as_text(propose_tasks(own)))
    (tmp_path / "photos").mkdir()
    photos = write_photos(tmp_path / "photos")
    opened = DeclaredModule("own_nets:build_grey", tmp_path / "tasks.yaml", str(photos), SIZE).open()
    left = opened.as_onnx(opened.prunable.net.copy())  # type: ignore[arg-type, attr-defined]
    assert [side.dim_value for side in left.graph.input[0].type.tensor_type.shape.dim] == [1, 1, *SIZE]
