"""A net with experts for an FPGA: its layers of experts as projects, the rest named as left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from experts import experts_yaml, largest_net

from edgemtl.devices import load_device
from edgemtl.errors import UserError
from edgemtl.export import Evidence, ExportRequest, export_bundle
from edgemtl.models import MultiTaskNet
from edgemtl.models.quantization import Ranges
from edgemtl.progress import Progress
from edgemtl.runtime import EngineSpec
from edgemtl.targets import HlsTarget
from edgemtl.targets.hls.mixtures import mixtures_of
from edgemtl.testing import experts_net, images, samples_for

SIZE = (64, 96)
EXPERTS = "kept: [6], top_k: [2], capacity: 1.0"


@pytest.fixture
def net(tmp_path: Path) -> MultiTaskNet:
    return largest_net(tmp_path, experts_yaml(EXPERTS))


def build(net: MultiTaskNet, folder: Path, device: str = "zcu104") -> HlsTarget:
    target = HlsTarget(load_device(device))
    folder.mkdir()
    files = target.build(net, {"engine": "fixed"}, Ranges({}), folder)
    assert {str(file) for file in files} == {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    return target


def test_each_layer_of_experts_is_a_project_and_the_rest_is_named(net: MultiTaskNet, tmp_path: Path) -> None:
    build(net, tmp_path / "hls")
    options = EngineSpec.read(tmp_path / "hls").options
    assert list(options["experts"]) == list(mixtures_of(net)) and len(options["experts"]) == 2
    for about in options["experts"].values():
        assert list(about["routers"].values()) == [[2, 8]] * 3
        header = (tmp_path / "hls" / about["folder"] / "moe_config.hpp").read_text()
        assert "ROUTER_CAPACITY[] = {8, 8, 8};" in header
    assert "left to the processor, since hls4ml has no attention" in options["left_out"]
    report = json.loads((tmp_path / "hls" / "estimate.json").read_text())
    assert all(layer["dsps"] == 256 and layer["kind"] == "estimated" for layer in report.values())


def test_the_simulation_runs_the_layers_of_experts_as_c_and_the_rest_in_float(
    net: MultiTaskNet, tmp_path: Path
) -> None:
    target, image = build(net, tmp_path / "hls"), images(1, SIZE)
    with torch.no_grad():
        expected = net(image)
    with target.simulation(net, tmp_path / "hls") as run:
        outputs = run(image.numpy(), ["depth", "kind"])
    assert list(outputs) == ["depth", "kind"]
    for task, each in outputs.items():
        for name, value in each.items():
            difference = np.abs(value - expected[task][name].numpy()).max()
            assert 0 < difference < 2e-3 * max(1.0, float(expected[task][name].abs().max()))
    weights = next((tmp_path / "hls").rglob("expert_weights.bin"))
    weights.write_bytes(bytes(weights.stat().st_size))
    with target.simulation(net, tmp_path / "hls") as run:
        changed = run(image.numpy(), ["depth"])
    ((name, before),) = outputs["depth"].items()
    assert (changed["depth"][name] != before).any()


def test_a_bundle_has_each_tasks_metric_and_a_line_on_what_is_left_out(tmp_path: Path) -> None:
    """Of tasks that reach four, four and six experts, so that the capacities differ."""
    net, events = experts_net(1.0), list[Progress]()
    samples, request = samples_for(net, 2), ExportRequest("hls", load_device("zcu104"))
    evidence = Evidence(samples, samples)
    manifest = export_bundle(net, "fp32", request, tmp_path / "bundle", evidence, report=events.append)
    engine = manifest.targets["hls"]
    assert (engine.checked, engine.device) == ("simulation", "zcu104")
    assert list(engine.parity) == [task.name for task in net.tasks]
    assert any(event.text.startswith("for the FPGA are the net's layers of experts, ") for event in events)


def test_a_layer_that_a_part_has_no_room_for_is_refused(net: MultiTaskNet, tmp_path: Path) -> None:
    device = load_device("kv260")
    assert device.fpga is not None
    tiny = device.model_copy(update={"fpga": device.fpga.model_copy(update={"dsps": 200})})
    with pytest.raises(UserError, match=r"^device kv260 is too small: .* 256 DSP \(60% more than the 160 that can be"):
        HlsTarget(tiny).build(net, {"engine": "fixed"}, Ranges({}), tmp_path)
