"""Whole nets as projects: what is refused needs no hls4ml, the rest does."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edgemtl.devices import Device, load_device
from edgemtl.errors import MissingDependencyError, UnsupportedError, UserError
from edgemtl.export import Evidence, ExportRequest, export_bundle
from edgemtl.models import MultiTaskNet
from edgemtl.models.graph import trace
from edgemtl.models.quantization import Ranges, calibrate
from edgemtl.nas.evaluation import check_budgets
from edgemtl.runtime import open_engine
from edgemtl.spaces import load_space
from edgemtl.targets import ExportTarget, SimulatingTarget, find_target, within_budgets
from edgemtl.targets.hls.fifo import fifo_depths, padding_depth
from edgemtl.targets.hls.layers import HlsNet, flat_net
from edgemtl.tasks import make_task
from edgemtl.testing import images, samples_for, small_net
from edgemtl.units import parse_budget

SIZE = (16, 32)
TASKS = (make_task("semseg", "segmentation", 3), make_task("depth", "depth"))


def small(block: str = "fused", activation: str = "relu") -> MultiTaskNet:
    return small_net(block, activation, TASKS, SIZE, (8, 8))


def ranges_of(net: MultiTaskNet) -> Ranges:
    return calibrate(net, images(4, SIZE))


def on(device: Device | str) -> ExportTarget:
    return find_target("hls", load_device(device) if isinstance(device, str) else device)


def flat(net: MultiTaskNet, precision: dict[str, str]) -> HlsNet:
    return flat_net(trace(net), precision, ranges_of(net))


def test_the_flat_net_computes_what_the_net_does() -> None:
    """But for the shuffle, which is the host's."""
    net, image = small(), images(1, SIZE)
    project = flat(net, {})
    with torch.no_grad():
        results = dict(zip(project.outputs, project.module(image), strict=True))
        expected = net(image)
    for task, outputs in expected.items():
        (value,) = outputs.values()
        shuffled = torch.pixel_shuffle(results[task], project.outputs[task][1])
        torch.testing.assert_close(shuffled, value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("width", "expected"), [("int12", 12), ("int10", 10), ("int8", 8)])
def test_types_have_the_bits_of_their_blocks_precision_and_hold_all_values(width: str, expected: int) -> None:
    net = small()
    ranges = ranges_of(net)
    project = flat(net, {"s1_1": width})
    for layer in project.layers:
        bits = expected if layer.node.block == "s1_1" else 16
        low, high = ranges[layer.node.output]
        assert layer.result.bits == bits or layer.node.op == "Resize"
        assert max(-low, high) * 2.0**layer.result.fraction <= 2 ** (layer.result.bits - 1)
        if layer.weight is not None and layer.accum is not None:
            assert layer.weight.bits == bits
            assert layer.accum.bits >= layer.weight.bits + 8


def test_a_fifo_holds_rows_where_paths_meet_and_two_pixels_elsewhere() -> None:
    project = flat(small(), {})
    depths, layers = fifo_depths(project), {layer.name: layer for layer in project.layers}
    assert depths.keys() == layers.keys()
    assert all(2 <= depth <= np.prod(layers[name].shape[1:]) for name, depth in depths.items())
    assert depths["blocks_s1_2_dense_conv"] == 2
    skip = "blocks_s1_1_project_conv"  # its sum waits for two convolutions
    assert depths[skip] > 2 * layers[skip].shape[2]


def test_the_padding_before_a_stride_holds_a_row() -> None:
    products = {product.name: product for product in flat(small(), {}).products}
    stem, second = products["blocks_stem_conv_conv"], products["blocks_s1_2_dense_conv"]
    assert (stem.stride, padding_depth(stem)) == (2, SIZE[1])
    assert (second.stride, padding_depth(second)) == (1, 2)


@pytest.mark.parametrize(
    ("net", "refusal"),
    [
        (
            lambda: small("depthwise"),
            r"a grouped \(depthwise\) convolution at blocks\.s1_1.*choose a design with fused bl",
        ),
        (
            lambda: small(activation="relu6"),
            r"Clip at blocks\.stem\.conv\.act is not in hls4ml's torch front end: export",
        ),
    ],
)
def test_an_operator_that_is_lacking_is_named_with_targets_that_have_it(
    net: object, refusal: str, tmp_path: Path
) -> None:
    made = net()  # type: ignore[operator]
    with pytest.raises(UnsupportedError, match=f"{refusal}.*onnxruntime, openvino or tensorrt-rtx"):
        on("zcu104").build(made, {"engine": "fixed"}, ranges_of(made), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_device_without_an_fpga_is_refused(tmp_path: Path) -> None:
    net = small()
    with pytest.raises(UserError, match="needs a device with an FPGA, host has none: add --device zcu104"):
        on("host").build(net, {"engine": "fixed"}, ranges_of(net), tmp_path)


def test_ranges_are_needed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no calibrated range for tensor 'image'"):
        on("zcu104").build(small(), {"engine": "fixed"}, None, tmp_path)


def test_a_part_that_is_too_small_is_refused(tmp_path: Path) -> None:
    device = load_device("kv260")
    assert device.fpga is not None
    tiny = device.model_copy(update={"fpga": device.fpga.model_copy(update={"dsps": 20})})
    net = small()
    with pytest.raises(
        UserError, match=r"device kv260 is too small: the net needs an estimated \d+ DSP .*zcu102 or zcu"
    ):
        on(tiny).build(net, {"engine": "fixed"}, ranges_of(net), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_with_its_install_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hls4ml", None)
    net = small()
    with pytest.raises(MissingDependencyError, match=r"needs the package hls4ml.*pip install 'edgemtl\[fpga\]'"):
        on("zcu104").build(net, {"engine": "fixed"}, ranges_of(net), tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_a_net_takes_is_counted_on_its_plan_and_named_estimated() -> None:
    traits, net = on("zcu104").traits, small()
    counted = {each.name: each.count(net.plan.blocks, {}) for each in traits.quantities if each.count}
    assert counted.keys() == {"luts", "dsps", "brams", "cycles"}
    assert all(value > 0 for value in counted.values())
    narrow = dict.fromkeys((block.parameters for block in net.plan.blocks), "int8")
    assert (
        next(each for each in traits.quantities if each.name == "luts").count(net.plan.blocks, narrow) < counted["luts"]
    )
    assert all("estimated" in each.text(1000.0) for each in traits.quantities)


def test_a_search_counts_budgets_in_resources_on_its_designs() -> None:
    target = on("zcu104")
    space = load_space("cnn", TASKS).for_target(target.traits)
    check_budgets([parse_budget("900DSP"), parse_budget("depth:2Mcycles")], target)
    smallest, largest = space.smallest().cost(), space.largest().cost()
    for name in ("luts", "dsps", "brams", "cycles"):
        assert 0 < smallest.amount(name) < largest.amount(name), name
    with pytest.raises(UserError, match="target onnxruntime does not count it; give FLOPs or MB"):
        check_budgets([parse_budget("900DSP")], find_target("onnxruntime"))


def test_a_runs_budgets_bound_its_projects_and_cycles_are_those_within_them() -> None:
    target, space = on("zcu102"), load_space("cnn", TASKS, (64, 64))
    cycles = []
    for budgets in ((), ("900DSP",)):
        within = within_budgets(target, budgets)
        cycles.append(space.for_target(within.traits).smallest().cost().amount("cycles"))
    assert cycles[1] > cycles[0], "fewer multipliers take turns more often"
    assert within_budgets(find_target("onnxruntime"), ("900DSP",)) == find_target("onnxruntime")


def test_weights_halfway_between_two_values_are_written_rounded(tmp_path: Path) -> None:
    """Those of FP16 often are; cut to a type's decimals they would be rounded down, and the others not."""
    pytest.importorskip("hls4ml")
    net, precision = small().half().float(), dict.fromkeys(small().blocks, "int8")
    on("zcu104").build(net, {"engine": "fixed", **precision}, ranges_of(net), tmp_path)
    source = (tmp_path / "firmware/edgemtl_net.cpp").read_text()
    for layer in flat(net, precision).layers:
        if layer.weight is not None:
            (file,) = re.findall(rf"load_weights_from_txt<{layer.name}_weight_t, \d+>\((w\d+)", source)
            written = np.array((tmp_path / f"firmware/weights/{file}.txt").read_text().split(","), np.float64)
            steps = written * 2.0**layer.weight.fraction
            own = layer.weight.integers(layer.node.constants["weight"].numpy())
            np.testing.assert_array_equal(np.sort(steps), np.sort(own.ravel()))


def test_a_project_names_part_types_and_reuse(tmp_path: Path) -> None:
    pytest.importorskip("hls4ml")
    net, (one, other) = small(), (tmp_path / "one", tmp_path / "other")
    for folder in (one, other):
        folder.mkdir()
        files = on("zcu104").build(net, {"engine": "fixed"}, ranges_of(net), folder)
    assert {str(file) for file in files} == {str(p.relative_to(other)) for p in other.rglob("*") if p.is_file()}
    assert all((one / file).read_bytes() == (other / file).read_bytes() for file in files)
    assert "xczu7ev-ffvc1156-2-e" in (one / "project.tcl").read_text()
    types, parameters = ((one / "firmware" / name).read_text() for name in ("defines.h", "parameters.h"))
    assert "AP_RND,AP_SAT" in types and "AP_TRN" not in types
    report = json.loads((one / "estimate.json").read_text())
    assert report["kind"] == "estimated" and report["dsps"] <= 0.8 * 1728
    assert all(f"reuse_factor = {each};" in parameters for each in report["reuse"].values())
    source = (one / "firmware" / "edgemtl_net.cpp").read_text()
    assert f"depth={(SIZE[0] + 2) * (SIZE[1] + 2)}" not in source  # of a whole image
    with pytest.raises(UnsupportedError, match="is a project for xczu7ev-ffvc1156-2-e"):
        open_engine(one)


@pytest.mark.slow
def test_the_c_simulation_computes_the_net(tmp_path: Path) -> None:
    pytest.importorskip("hls4ml")
    net, target = small(), on("zcu104")
    assert isinstance(target, SimulatingTarget)
    target.build(net, {"engine": "fixed"}, ranges_of(net), tmp_path)
    with target.simulation(net, tmp_path) as run:
        for seed in (1, 2):
            image = images(1, SIZE, seed=seed)
            outputs = run(image.numpy(), ["depth", "semseg"])
            with torch.no_grad():
                expected = net(image)
            for task, each in expected.items():
                for name, value in each.items():
                    largest = float(value.abs().max())
                    assert np.abs(outputs[task][name] - value.numpy()).max() < 5e-3 * max(largest, 1.0)


@pytest.mark.slow
def test_a_bundle_has_each_tasks_metric_by_c_simulation(tmp_path: Path) -> None:
    """An engine's precision that the target lacks gives way to its own."""
    pytest.importorskip("hls4ml")
    net, request = small_net("fused", size=SIZE, widths=(8, 8)), ExportRequest("hls", load_device("zcu104"))
    samples = samples_for(net, 2)
    manifest = export_bundle(net, "fp32", request, tmp_path / "bundle", Evidence(samples, samples))
    engine = manifest.targets["hls"]
    assert (engine.checked, engine.device, engine.hardware) == ("simulation", "zcu104", "FPGA xczu7ev-ffvc1156-2-e")
    assert list(engine.parity) == ["semseg", "depth", "normals"]
    for parity in engine.parity.values():
        assert parity.metric_allowed is not None
        assert all(0 < output.relative_error < 0.01 for output in parity.outputs.values())
