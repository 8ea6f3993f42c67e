"""Bundles of nets of one's own whose linear layers have weights of four bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from own_nets import write_photos
from refusals import refused
from token_net import SIZE

from edgemtl.bundle import Manifest, read_manifest
from edgemtl.cli import main
from edgemtl.devices import load_device
from edgemtl.export import ExportRequest, Rounding, export_own_net
from edgemtl.own import open_net, propose_tasks
from edgemtl.runtime import Engine

TARGETS = ("onnxruntime", "openvino")
EXPORT = ["export", "token_net:build", "--size", "16x24", "--precision", "int4"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Path]:
    folder = tmp_path_factory.mktemp("four") / "bundle"
    net = open_net("token_net:build", SIZE)
    return export_own_net(net, propose_tasks(net), ExportRequest(TARGETS), folder, rounding=Rounding("int4")), folder


def test_a_bundle_needs_no_photos_and_tells_bytes_blocks_and_agreement(bundle: tuple[Manifest, Path]) -> None:
    manifest, _ = bundle
    assert {*manifest.precision.values()} == {"fp32", "int4"}
    four = [block for block in manifest.blocks if block.precision == "int4"]
    assert {block.task for block in four} == {None, "label"}, "convolutions stay in float, and so does the map"
    weights = 2 * (32 * 96 + 32 * 32 + 2 * 32 * 64) + 32 * 6
    saved_bytes = weights * 4 - weights // 32 * (16 + 4)
    tables = {table.name: table.bytes for block in manifest.blocks for table in block.weights}
    assert manifest.cost.weight_bytes == sum(tables.values()) - saved_bytes
    for target in TARGETS:
        parity = manifest.targets[target].parity
        assert all(each.metric_allowed is None for each in parity.values())
        assert 0.8 < parity["map"].agreement < 1, "weights are rounded"
    ours, theirs = (manifest.targets[target].parity["map"].outputs["map"] for target in TARGETS)
    assert ours.max_abs_error == pytest.approx(theirs.max_abs_error, rel=1e-3), "both multiply what is stored, in float"


def test_every_mode_gives_the_same(bundle: tuple[Manifest, Path]) -> None:
    _, folder = bundle
    picture = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    given = {}
    for target in TARGETS:
        with Engine(folder, target) as engine:
            given[target] = engine.run(picture, ["label", "map"])
            given[target] = {
                task: {name: value.copy() for name, value in each.items()} for task, each in given[target].items()
            }
            for task in ("label", "map"):
                alone = engine.run(picture, [task])[task]
                for name, value in alone.items():
                    np.testing.assert_allclose(value, given[target][task][name], atol=1e-5)
    for task, outputs in given["onnxruntime"].items():
        for name, value in outputs.items():
            np.testing.assert_allclose(value, given["openvino"][task][name], atol=1e-4)


def test_the_command_line_exports_runs_and_profiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path, SIZE, 2)
    assert main([*EXPORT, "--target", "onnxruntime", "--out", "mine"]) == 0
    assert "agreement with the float net" in capsys.readouterr().out
    assert {*read_manifest(Path("mine")).precision.values()} == {"fp32", "int4"}
    assert main(["run", "mine", "0.png"]) == 0
    assert main(["profile", "mine", "--runs", "20", "--format", "json", "--out", "profiled"]) == 0
    assert main(["report", "mine", "--out", "page.html"]) == 0
    assert "int4" in (tmp_path / "page.html").read_text()


def test_a_target_without_such_layers_refuses_it(tmp_path: Path) -> None:
    net = open_net("token_net:build", SIZE)
    request = ExportRequest("tensorrt", device=load_device("jetson-orin-nano"))
    words = refused(
        lambda: export_own_net(net, propose_tasks(net), request, tmp_path / "orin", rounding=Rounding("int4"))
    )
    assert "target tensorrt has no precision 'int4' for block" in words and "allowed: float, int8" in words
