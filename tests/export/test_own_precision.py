"""Bundles of nets of one's own in less than FP32: every mode answers, and how far each task agrees is recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from own_nets import saved, three_tasks, write_photos
from refusals import refused

from edgemtl.bundle import read_manifest
from edgemtl.cli import main
from edgemtl.export import ExportRequest, Rounding, export_own_net
from edgemtl.own import open_net, propose_tasks, read_photos
from edgemtl.runtime import Engine

TARGETS = ("onnxruntime", "openvino")
MODES = (("parsing",), ("pose",), ("best", "pose"), ("parsing", "pose", "best"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


def test_int8_keeps_every_mode_and_tells_how_far_each_task_agrees(photos: Path, tmp_path: Path) -> None:
    net, out = open_net(str(saved(three_tasks(), tmp_path))), tmp_path / "bundle"
    rounding = Rounding("int8", photos)
    manifest = export_own_net(net, propose_tasks(net), ExportRequest(TARGETS), out, rounding=rounding)
    assert {block.precision for block in manifest.blocks} == {"int8", "float"}
    assert set(manifest.precision.values()) == {"fp32", "int8"}
    float_bytes = 4 * manifest.cost.params
    assert manifest.cost.weight_bytes < 0.6 * float_bytes
    parity = {target: manifest.targets[target].parity for target in TARGETS}
    for target in TARGETS:
        pose = parity[target]["pose"]
        assert pose.agreement is not None and 0.9 < pose.agreement < 1 and pose.agreement == pose.engine
        assert pose.metric_allowed is None and pose.images == 3
        with Engine(out, target) as engine:
            picture = photos / "0.png"
            whole = engine.run(picture, MODES[-1])
            for mode in MODES:
                for task, outputs in engine.run(picture, mode).items():
                    for name, value in outputs.items():
                        apart = np.abs(value - whole[task][name]).max()
                        assert apart < 0.05 * np.abs(whole[task][name]).max() or task == "best"


def test_the_check_is_on_other_photos_than_the_calibration(photos: Path) -> None:
    parts = read_photos(photos)
    assert len(parts.calibration) == len(parts.validation) == len(parts.test) == 3
    assert len({*parts.calibration, *parts.validation, *parts.test}) == 9
    assert read_photos(photos) == parts


def test_the_command_line_takes_a_precision_and_photos(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(three_tasks(), tmp_path)
    export = ["export", "theirs.onnx", "--target", "onnxruntime", "--out", "mine"]
    assert main([*export, "--precision", "int8", "--data", str(photos)]) == 0
    shown = capsys.readouterr()
    assert "agreement with the float net" in shown.out and "3 images, every mode (7)" in shown.out
    assert "calibrating on 3 images" in shown.err
    assert main([*export, "--data", str(photos)]) == 1
    assert "holds another net (design, precision or weights differ)" in capsys.readouterr().err
    assert read_manifest(tmp_path / "mine").provenance.data == {"name": "photos", "images": 3}


def test_what_cannot_be_rounded_is_refused_in_one_line(photos: Path, tmp_path: Path) -> None:
    net, out = open_net(str(saved(three_tasks(), tmp_path))), tmp_path / "bundle"

    def words(rounding: Rounding) -> str:
        declaration = propose_tasks(net)
        return refused(lambda: export_own_net(net, declaration, ExportRequest("onnxruntime"), out, rounding=rounding))

    assert "--precision int8 needs photos to calibrate on: give a folder" in words(Rounding("int8"))
    assert "is no folder" in words(Rounding("int8", tmp_path / "none"))
    assert "holds 0 pictures" in words(Rounding("int8", tmp_path))
    assert "--precision int2 is none of float, int8, int4, fp32" in words(Rounding("int2", photos))
    assert not out.exists()
