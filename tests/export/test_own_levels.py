"""Levels of nets of one's own: one copy of the weights, every level its own net, agreement with the whole one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from own_nets import model_of, saved, weight, write_photos
from refusals import refused

from edgemtl.bundle import Manifest, read_manifest
from edgemtl.cli import main
from edgemtl.export import ExportRequest, export_own_levels
from edgemtl.export.level_files import WEIGHTS_FILE
from edgemtl.files.seals import sealed
from edgemtl.nas.prune import PRUNING_FILE, DeclaredModule, PruneRequest, parse_levels, prune
from edgemtl.own import as_text, open_net, propose_tasks
from edgemtl.report import write_report
from edgemtl.runtime import Engine, EngineSpec


def theirs() -> onnx.ModelProto:
    """A trunk with a depthwise layer, of which two branches are put side by side, a map, and points."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="stem", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"], name="act"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="depthwise", pads=[1, 1, 1, 1], group=32),
        helper.make_node("Conv", ["c", "w3"], ["d"], name="unit"),
        helper.make_node("Concat", ["b", "d"], ["e"], name="side_by_side", axis=1),
        helper.make_node("Conv", ["e", "w4"], ["f"], name="neck", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["f"], ["g"], name="act2"),
        helper.make_node("Conv", ["g", "w5"], ["map"], name="map_head"),
        helper.make_node("GlobalAveragePool", ["g"], ["h"], name="pool"),
        helper.make_node("Flatten", ["h"], ["i"], name="flatten"),
        helper.make_node("Gemm", ["i", "w6"], ["points"], name="points_head"),
    ]
    shapes = ((32, 3, 3, 3), (32, 1, 3, 3), (32, 32, 1, 1), (48, 64, 3, 3), (8, 48, 1, 1), (48, 4))
    weights = [weight(f"w{number}", *shape) for number, shape in enumerate(shapes, 1)]
    return model_of(nodes, dict.fromkeys(("map", "points"), TensorProto.FLOAT), weights)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The net's file, and a folder of pictures."""
    folder = tmp_path_factory.mktemp("levels")
    saved(theirs(), folder)
    (folder / "photos").mkdir()
    write_photos(folder / "photos")
    return folder


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def bundle(request: pytest.FixtureRequest, workplace: Path) -> tuple[Path, Manifest]:
    spec, target = str(workplace / "theirs.onnx"), str(request.param)
    net = open_net(spec)
    out = workplace / f"bundle-{target}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEMTL_CACHE", str(workplace / "cache"))
        wanted, photos = "1,0.5", workplace / "photos"
        manifest = export_own_levels((net, spec, propose_tasks(net)), wanted, ExportRequest(target), out, photos)
    return out, manifest


def test_levels_switch_and_the_first_is_the_net(bundle: tuple[Path, Manifest], workplace: Path) -> None:
    folder, manifest = bundle
    whole, half = manifest.levels
    assert read_manifest(folder).levels == manifest.levels
    assert (whole.name, half.name, half.budget) == ("100%", "50%", "50%FLOPs")
    assert half.cost.flops <= whole.cost.flops / 2 and half.cost.weight_bytes < whole.cost.weight_bytes
    for level in manifest.levels:
        for parity in level.parity.values():
            assert all(output.relative_error < 1e-4 for output in parity.outputs.values())
    assert all(each.agreement is not None and each.agreement > 0.999 for each in whole.parity.values())
    assert all(each.agreement is not None and each.agreement < 0.999 for each in half.parity.values())
    page = write_report(folder).read_text()
    assert "agree with the whole net" in page and "50%FLOPs" in page
    photo = workplace / "photos" / "0.png"
    with Engine(folder) as engine:
        first = {task: np.concatenate([*map(np.ravel, each.values())]) for task, each in engine.run(photo).items()}
        assert engine.set_level(budget="60%FLOPs").name == "50%"
        narrow = engine.run(photo, "points")
        assert set(narrow) == {"points"}
        assert not np.allclose(np.ravel(next(iter(narrow["points"].values()))), first["points"], rtol=1e-3)
        assert engine.set_level().name == "100%"
        assert np.array_equal(np.ravel(next(iter(engine.run(photo)["points"].values()))), first["points"])


def test_prunings_of_the_net_are_levels(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEMTL_CACHE", str(workplace / "cache"))
    spec, photos, run = str(workplace / "theirs.onnx"), workplace / "photos", tmp_path / "narrow"
    net = open_net(spec)
    declaration = propose_tasks(net)
    (tmp_path / "tasks.yaml").write_text(as_text(declaration))
    prune(PruneRequest(DeclaredModule(spec, tmp_path / "tasks.yaml", str(photos)), run, ("70%FLOPs",), fast=True))
    about, request = (net, spec, declaration), ExportRequest("onnxruntime")
    manifest = export_own_levels(about, str(run), request, tmp_path / "out", photos)
    record = json.loads((run / PRUNING_FILE).read_text())
    whole, narrow = manifest.levels
    assert (narrow.name, narrow.budget) == ("narrow", "pruned into narrow")
    assert narrow.design == {f"{row['group']}.channels": row["after"] for row in record["groups"]} != whole.design
    assert all(output.relative_error < 1e-4 for parity in narrow.parity.values() for output in parity.outputs.values())
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["profile", str(tmp_path / "out"), "--runs", "2"]) == 0
    assert "pruned into narrow" in capsys.readouterr().out
    del record["sha256"]
    (run / PRUNING_FILE).write_text(json.dumps(sealed({**record, "finetuned": {"steps": 1}})))
    message = refused(lambda: export_own_levels(about, str(run), request, tmp_path / "again", photos))
    assert "narrow was fitted or trained after it was pruned" in message
    nothing = refused(lambda: export_own_levels(about, str(photos), request, tmp_path / "again", photos))
    assert "no folder that `edgemtl prune` wrote" in nothing


def test_weights_of_all_levels_are_stored_once(bundle: tuple[Path, Manifest]) -> None:
    folder, manifest = bundle
    (target,) = manifest.targets.values()
    engines = folder / target.folder
    whole = manifest.levels[0].cost.weight_bytes
    assert (engines / WEIGHTS_FILE).stat().st_size < 1.15 * whole, "positions and factors alone are each level's own"
    (half,) = EngineSpec.read(engines).at(1).options["shared"].values()
    picks = {name.split(".")[-2] if "." in name else name: rest for _, name, *rest in half}
    assert len(half) >= 3, "the stem's is too small; the unit's, the neck's and a head's are parts of the whole net's"
    assert all(rest[2] for rest in picks.values())


def test_the_command_line_shows_agreement_by_level_and_task(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGEMTL_CACHE", str(workplace / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    out = tmp_path / "bundle"
    words = ["--levels", "0.75", "--data", str(workplace / "photos"), "--target", "onnxruntime", "--out", str(out)]
    assert main(["export", str(workplace / "theirs.onnx"), *words]) == 0
    printed, notes = capsys.readouterr()
    assert "agreement of their engines with the whole net" in printed and "75%FLOPs" in printed
    assert "models and weights" in notes
    assert json.loads((out / "manifest.json").read_text())["levels"][1]["name"] == "75%"


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ("1", "the whole net is a level by itself"),
        ("1,half", "'half' is no part of the net's FLOPs, and no folder"),
        ("1,0", "'0' is no part of the net's FLOPs"),
        ("2,0.5", "give numbers above 0, the whole net being 1"),
        ("", "'' is no part"),
        ("nan", "'nan' is no part"),
    ],
)
def test_levels_that_are_none(levels: str, expected: str) -> None:
    assert expected in refused(lambda: parse_levels(levels))


def test_what_levels_do_not_go_with(workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, photos = str(workplace / "theirs.onnx"), str(workplace / "photos")
    for words, expected in (
        (["--levels", "0.5"], "needs photos to see which channels matter"),
        (["--levels", "0.5", "--data", photos, "--precision", "int8"], "levels are float"),
        (["--levels", "0.5", "--data", photos, "--image", "a.png"], "drop --image"),
        (["--levels", "0.01", "--data", photos], "pruning reaches"),
    ):
        assert main(["export", net, *words, "--target", "onnxruntime", "--out", str(tmp_path / "out")]) == 1
        error = capsys.readouterr().err
        assert expected in error and "Traceback" not in error
    assert main(["export", str(tmp_path), "--levels", "1,0.5", "--target", "onnxruntime"]) == 1
    assert "of a run a number is wanted" in capsys.readouterr().err


def test_a_target_that_cannot_share(workplace: Path, tmp_path: Path) -> None:
    spec = str(workplace / "theirs.onnx")
    net = open_net(spec)
    about, request = (net, spec, propose_tasks(net)), ExportRequest("tensorrt-rtx")
    message = refused(lambda: export_own_levels(about, "0.5", request, tmp_path / "out", workplace / "photos"))
    assert "cannot share the weights of levels" in message
