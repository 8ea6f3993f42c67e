"""Placement on the DLA: what it refuses, scales on every tensor, settings, builds on boards with and without one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import onnx
import pytest
import torch
from tensorrt_fake import FakeCuda, fake_tensorrt, write_board

from edgemtl.devices import load_device
from edgemtl.errors import UnsupportedError, UserError
from edgemtl.export import ExportRequest
from edgemtl.models.quantization import calibrate, simulate
from edgemtl.runtime import EngineSpec
from edgemtl.runtime.tensorrt.cuda import Cuda
from edgemtl.runtime.tensorrt.session import open_session
from edgemtl.targets import TensorRtTarget, emit
from edgemtl.targets.tensorrt.dla import DLA_SCHEME, lint_dla, placement_of
from edgemtl.targets.tensorrt.rules import DLA_REMEDIES
from edgemtl.tasks import by_tensor
from edgemtl.testing import images, small_net

NET = small_net("fused", widths=(16, 24))
RANGES = calibrate(NET, images(4))
EIGHT = {"engine": "fp16", **dict.fromkeys(NET.blocks, "int8")}
ORIN = load_device("jetson-agx-orin")


def model_of(body: str, output: str = "float[1, 4, 8, 8] y", image: str = "float[1, 4, 8, 8] x") -> onnx.ModelProto:
    """A model of one input and some constants, in ONNX's textual form."""
    constants = (
        "float[4, 4, 3, 3] w, float[8, 4, 2, 2] up, float low = {0.0}, float under = {-1.0}, float high = {6.0}, "
        "float[4] two = {1.0, 1.0, 2.0, 2.0}, float[4] eight = {1.0, 1.0, 8.0, 8.0}"
    )
    text = f'<ir_version: 9, opset_import: ["" : 17]> g ({image}) => ({output}) <{constants}> {{ {body} }}'
    return onnx.parser.parse_model(text)


BIG = "float[1, 4, 16, 16] y"
TAKEN = {
    "Conv": ("y = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (x, w)", "float[1, 4, 8, 8] y"),
    "relu6": ("y = Clip (x, low, high)", "float[1, 4, 8, 8] y"),
    "sum": ("y = Add (x, x)", "float[1, 4, 8, 8] y"),
    "pool": ("y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)", "float[1, 4, 4, 4] y"),
    "linear": ('y = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (x, , two)', BIG),
    "nearest": (
        'y = Resize <coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, , eight)',
        "float[1, 4, 64, 64] y",
    ),
}
REFUSED = {
    "dla operator": ("y = GlobalAveragePool (x)", "float[1, 4, 1, 1] y", "has no GlobalAveragePool"),
    "kernel": (
        "y = MaxPool <kernel_shape = [9, 9], pads = [4, 4, 4, 4]> (x)", "float[1, 4, 8, 8] y", "and 1 to 8 is taken",
    ),
    "padding": (
        "y = ConvTranspose <kernel_shape = [2, 2], pads = [1, 1, 0, 0]> (x, up)", "float[1, 4, 8, 8] y", "and 0 is",
    ),
    "clip": ("y = Clip (x, under, high)", "float[1, 4, 8, 8] y", "clips below"),
    "axis": ("y = Concat <axis = 2> (x, x)", "float[1, 4, 16, 8] y", "another axis"),
    "factor": (
        "y = Resize <mode = \"linear\", coordinate_transformation_mode = \"half_pixel\"> (x, , eight)",
        "float[1, 4, 64, 64] y",
        "whole ones up to 4 are taken for linear",
    ),
    "position": (
        "y = Resize <mode = \"linear\", coordinate_transformation_mode = \"asymmetric\"> (x, , two)", BIG, "asymmetric",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TAKEN)
def test_what_the_dla_takes(name: str) -> None:
    body, output = TAKEN[name]
    assert lint_dla(model_of(body, output)) == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_refuses_is_named_with_a_remedy(name: str) -> None:
    body, output, words = REFUSED[name]
    (problem,) = lint_dla(model_of(body, output))
    assert words in str(problem) and str(problem).endswith(DLA_REMEDIES[problem.rule])


def test_maps_alone_have_a_place() -> None:
    (flat,) = lint_dla(model_of("y = Relu (x)", "float[1, 8] y", "float[1, 8] x"))
    (wide,) = lint_dla(model_of("y = Relu (x)", "float[1, 4, 8, 9000] y", "float[1, 4, 8, 9000] x"))
    assert {flat.rule, wide.rule} == {"dla shape"} and "above 8192" in wide.detail


def test_every_tensor_of_a_region_in_eight_bits_has_a_magnitude() -> None:
    """Not those of blocks in float, and not what the caller reads."""
    model = emit(NET)
    first = next(iter(NET.blocks))
    precision = {**EIGHT, first: "float"}
    placed = placement_of(model, precision, RANGES)
    outputs = {info.name for info in model.graph.output}
    constants = {tensor.name for tensor in model.graph.initializer}
    tensors = {
        name
        for node in model.graph.node
        if node.name.startswith("blocks.") and node.name.split(".")[1] != first
        for name in (*node.input, *node.output)
        if name
    }
    assert set(placed.magnitudes) == tensors - constants - outputs
    assert all(value >= 0 for value in placed.magnitudes.values())
    assert set(placed.blocks) <= set(NET.blocks)


def test_what_is_written_is_a_graph_in_floats_with_scales_beside_it(tmp_path: Path) -> None:
    TensorRtTarget(ORIN, dla=True).build(NET, EIGHT, RANGES, tmp_path)
    spec = EngineSpec.read(tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    assert not [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert {"stem", "s1_1"} <= set(spec.options["dla"])
    heads = [name for name, task in NET.block_tasks.items() if task]
    assert heads and not set(heads) & set(spec.options["dla"]), "they stand inside If"
    assert all("the DLA has no control flow" in reason for reason in spec.options["gpu"] if reason.startswith("If at"))
    assert any(reason.startswith("If at") for reason in spec.options["gpu"])
    builds = spec.options["builds"]
    assert [each["since"] for each in builds] == ["8.5", "10.0"]
    assert all({"FP16", "INT8", "GPU_FALLBACK"} <= set(each["builder_flags"]) for each in builds)
    assert all(each["magnitudes"] and not each["trtexec"] for each in builds)
    half = tmp_path / "half"
    TensorRtTarget(ORIN, "5.1", dla=True).build(NET, {"engine": "fp16"}, RANGES, half)
    (build,) = EngineSpec.read(half).options["builds"]
    assert build["magnitudes"] == {} and {"--useDLACore=0", "--fp16", "--allowGPUFallback"} <= set(build["trtexec"])


@pytest.mark.parametrize("version", ["8.5.2.2", "10.3.0"])
def test_a_board_with_a_dla_builds_with_all_scales(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setenv("EDGEMTL_CACHE", str(tmp_path / "cache"))
    TensorRtTarget(ORIN, dla=True).build(NET, EIGHT, RANGES, tmp_path / "engine")
    spec, image = EngineSpec.read(tmp_path / "engine"), images(1)

    def opened(name: str, cores: int) -> None:
        trt = fake_tensorrt(name, dla_cores=cores)
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        session = open_session(tmp_path / "engine", spec, 0, None, lambda: Cuda(FakeCuda()), write_board(tmp_path))
        (built,) = trt.built
        magnitudes = spec.options["builds"][0]["magnitudes"]
        assert built["dla"] and {name: most for name, (_, most) in built["ranges"].items()} == magnitudes
        with torch.no_grad():
            expected = by_tensor(NET(image))["depth"].numpy()
        assert abs(by_tensor(session.run(image.numpy(), ["depth"]))["depth"] - expected).max() < 1e-4
        session.close()

    opened(version, 2)
    with pytest.raises(UnsupportedError, match=r"finds no DLA on this board: export without --dla"):
        opened("10.13.3", 0)
    with pytest.raises(UnsupportedError, match=r"TensorRT 11\.4\.1, .* are for versions before 11\.0: .*--jetpack"):
        opened("11.4.1", 2)


def test_all_that_is_stored_is_rounded_in_the_simulation() -> None:
    image = images(1)
    with torch.no_grad():
        exact, rounded = (by_tensor(net(image))["depth"] for net in (NET, simulate(NET, EIGHT, RANGES, DLA_SCHEME)))
    assert 0 < float((rounded - exact).norm() / exact.norm()) < 0.5


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (ExportRequest("tensorrt", dla=True), "device host has no DLA: give --device with one that has"),
        (ExportRequest("tensorrt", load_device("jetson-orin-nano"), dla=True), "has no DLA: .*jetson-agx-orin"),
        (ExportRequest("tensorrt", ORIN, jetpack="7.2.2", dla=True), r"TensorRT 11\.4\.1, which is told no scales"),
        (ExportRequest("onnxruntime", ORIN, dla=True), "DLA given for onnxruntime: it decides the graphs of"),
    ],
)
def test_a_dla_that_is_not_there_is_one_line(request_: ExportRequest, expected: str) -> None:
    with pytest.raises(UserError, match=expected) as error:
        request_.find_targets(NET)
    assert "\n" not in str(error.value)


def test_a_dla_is_a_board_s_own_file_that_says_so() -> None:
    assert [load_device(name).dla for name in ("jetson-agx-orin", "jetson-orin-nano")] == [2, 0]
    traits = TensorRtTarget(ORIN, dla=True).traits
    assert traits.engine_precisions == ("fp16",) and traits.needs_ranges
    assert json.dumps(list(traits.block_precisions)) == '["float", "int8"]'
