"""Labels of a data set score a net of one's own: each task by its own metric, of the engine and of the net in float."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from chain import make_workplace
from own_nets import regions_and_sides, saved
from refusals import refused
from torch.nn import functional

from edgemtl.cli import main
from edgemtl.data import open_source
from edgemtl.export import ExportRequest, Rounding, export_own_net
from edgemtl.files.images import normalize
from edgemtl.own import Declaration, DeclaredTask, OwnNet, open_net
from edgemtl.train import Scorer

SIZE = (64, 64)
REGIONS = DeclaredTask(kind="segmentation", outputs=("regions",))
SIDE = DeclaredTask(kind="classification", outputs=("side",))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of regions, depth and sides, and the file of a net of two of them."""
    folder = tmp_path_factory.mktemp("labels")
    make_workplace(folder)
    saved(regions_and_sides(), folder)
    return folder


@pytest.fixture
def net(workplace: Path) -> OwnNet:
    return open_net(str(workplace / "theirs.onnx"))


def test_each_task_is_scored_by_its_own_metric(net: OwnNet, workplace: Path, tmp_path: Path) -> None:
    declaration = Declaration(constants={}, tasks={"regions": REGIONS, "side": SIDE})
    rounding = Rounding("int8", workplace / "data")
    manifest = export_own_net(net, declaration, ExportRequest("onnxruntime"), tmp_path / "out", rounding=rounding)
    parity = manifest.targets["onnxruntime"].parity
    source = open_source(str(workplace / "data"), SIZE)
    scorer = Scorer([task for task in source.tasks if task.name != "depth"])
    for sample in source.split("test"):
        given = net.reference(normalize(sample.image[None]))
        regions = functional.interpolate(torch.from_numpy(given["regions"]), SIZE, mode="bilinear")
        scorer.update({"regions": {"logits": regions}, "side": {"logits": torch.from_numpy(given["side"])}}, [sample])
    scores = scorer.compute()
    assert {task: each.metric for task, each in parity.items()} == {"regions": "miou", "side": "accuracy"}
    for task, each in parity.items():
        assert (each.split, each.images) == ("test", 6)
        assert each.torch == pytest.approx(scores[task][each.metric], abs=1e-6)
        assert abs(each.engine - each.torch) < 0.2
    assert manifest.provenance.data == {"name": "data", "images": 6}


def test_the_command_line_shows_both_scores(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    (tmp_path / "tasks.yaml").write_text("tasks: {regions: {kind: segmentation, outputs: [regions]}}\nunused: [side]\n")
    words = ["--tasks", str(tmp_path / "tasks.yaml"), "--target", "onnxruntime", "--out", str(tmp_path / "out")]
    assert main(["export", str(workplace / "theirs.onnx"), *words, "--data", str(workplace / "data/data.yaml")]) == 0
    printed = capsys.readouterr().out
    assert "on labels" in printed and "in float" in printed and "miou" in printed


def test_labels_that_do_not_fit_are_one_line(net: OwnNet, workplace: Path, tmp_path: Path) -> None:
    data, text = workplace / "data", (workplace / "data/data.yaml").read_text()
    three = workplace / "data/three.yaml"
    three.write_text(text.replace("[dark, bright]", "[dark, bright, other]"))

    def words(given: Path, **tasks: DeclaredTask) -> str:
        declaration = Declaration(constants={}, tasks=tasks)
        rounding, request = Rounding("int8", given), ExportRequest("onnxruntime")
        return refused(lambda: export_own_net(net, declaration, request, tmp_path / "out", rounding=rounding))

    assert "task of the net 'side2'" in words(data / "data.yaml", regions=REGIONS, side2=SIDE)
    raw = DeclaredTask(outputs=("side",))
    assert "is of kind raw in the tasks file, and of kind classification" in words(
        data / "data.yaml", regions=REGIONS, side=raw
    )
    assert "have 3 channels or classes, the output of the net has 2" in words(three, regions=REGIONS, side=SIDE)
    assert not (tmp_path / "out").exists()
    three.unlink()
