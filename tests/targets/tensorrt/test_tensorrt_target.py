"""TensorRT's target: graphs for every generation, settings for each, and boards that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from edgemtl.devices import load_device
from edgemtl.errors import UserError
from edgemtl.export import ExportRequest
from edgemtl.models import MultiTaskNet
from edgemtl.models.quantization import Ranges, calibrate, simulate
from edgemtl.runtime import open_engine
from edgemtl.targets import TENSORRT_VERSIONS, TensorRtTarget, build_plan, find_target, lint
from edgemtl.tasks import by_tensor
from edgemtl.testing import TargetConformance, grid_net, images, mixed_precision, small_net
from edgemtl.testing.examples import experts_net

TENSORRT = find_target("tensorrt")
NETS = {"cnn": small_net("fused"), "grid": grid_net(), "vit": experts_net(1.0, (32, 64))}


class TestTensorRt(TargetConformance):
    """The contract, but for running: a board builds the engines."""

    target = TENSORRT


def precisions(net: MultiTaskNet) -> list[dict[str, str]]:
    """Both types of float, alone and with every block in INT8."""
    return [
        {"engine": engine, **dict.fromkeys(net.blocks, block)}
        for engine in ("fp32", "fp16")
        for block in ("float", "int8")
    ]


def spec_of(folder: Path) -> dict[str, Any]:
    """Content of `engine.json`."""
    content: dict[str, Any] = json.loads((folder / "engine.json").read_text())
    return content


@pytest.mark.parametrize("family", NETS)
def test_every_graph_passes_for_every_generation_and_has_its_settings(tmp_path: Path, family: str) -> None:
    net = NETS[family]
    ranges = calibrate(net, images(4, net.input_size))
    for number, precision in enumerate(precisions(net)):
        folder = tmp_path / str(number)
        TENSORRT.build(net, precision, ranges, folder)
        spec = json.loads((folder / "engine.json").read_text())
        builds = spec["options"]["builds"]
        assert [each["since"] for each in builds] == ["8.5", "10.0", "10.13", "11.0"]
        for version, each in zip(TENSORRT_VERSIONS, builds, strict=True):
            model = onnx.load(folder / spec["files"][each["graph"]])
            assert lint(model, version) == []
        weak, strong = builds[0], builds[1:]
        assert weak["network_flags"] == ["EXPLICIT_BATCH"]
        assert ("FP16" in weak["builder_flags"]) == (precision["engine"] == "fp16")
        assert ("INT8" in weak["builder_flags"]) == ("int8" in precision.values())
        assert all(each["network_flags"] == ["STRONGLY_TYPED"] and not each["builder_flags"] for each in strong)


@pytest.mark.parametrize("family", NETS)
def test_a_graph_is_of_opset_17_and_symmetric_with_both_inputs_of_a_sum_rounded(tmp_path: Path, family: str) -> None:
    net = NETS[family]
    TENSORRT.build(net, precisions(net)[1], calibrate(net, images(4, net.input_size)), tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    assert model.opset_import[0].version == 17
    zeros = [tensor for tensor in model.graph.initializer if tensor.name.endswith(".zero")]
    assert zeros and all(not onnx.numpy_helper.to_array(tensor).any() for tensor in zeros)
    assert not [tensor.name for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.UINT8]


def outputs_of(path: Path, image: torch.Tensor, tasks: list[str]) -> dict[str, np.ndarray]:
    """Outputs by ONNX Runtime, with its own rewriting turned off; what it has no kernels for is an error."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    feeds = {"image": image.numpy()} | {
        each.name: np.array([each.name.removeprefix("want_") in tasks])
        for each in session.get_inputs()
        if each.name != "image"
    }
    return dict(zip([each.name for each in session.get_outputs()], session.run(None, feeds), strict=True))


@pytest.mark.parametrize("family", NETS)
def test_a_graph_computes_what_is_simulated_for_every_task_and_nothing_for_the_others(
    tmp_path: Path, family: str
) -> None:
    """By ONNX Runtime in place of the board."""
    net, image = NETS[family], images(1, NETS[family].input_size, seed=5)
    ranges = calibrate(net, images(8, net.input_size))
    with torch.no_grad():
        exact = by_tensor(net(image))
    for number, precision in enumerate(precisions(net)):
        folder = tmp_path / str(number)
        TensorRtTarget(load_device("host")).build(net, precision, ranges, folder)
        for engine, file in zip(("fp32", "fp16"), spec_of(folder)["files"].values(), strict=False):
            simulated = by_tensor(simulate(net, {**precision, "engine": engine}, ranges, TENSORRT.scheme)(image))
            # Typed FP16 rounds after every operator, kernels only where they store; a token may go to another expert.
            limit = 1.5 if family == "vit" else {"fp32": 0.5, "fp16": 1.0}[engine]
            narrow = {"fp32": 1e-4, "fp16": 3e-3}[engine]
            for task in exact:
                outputs = outputs_of(folder / file, image, [task])
                assert not any(outputs[other].any() for other in exact if other != task)
                apart = np.linalg.norm(outputs[task] - simulated[task].numpy())
                rounding = (simulated[task] - exact[task]).norm().item()
                assert apart <= limit * rounding + narrow * exact[task].norm().item(), (precision, file, task)


@pytest.mark.parametrize("family", ["cnn", "grid", pytest.param("vit", marks=pytest.mark.slow)])
def test_tensorrt_rtx_builds_the_graphs(tmp_path: Path, family: str) -> None:
    """On a machine without a GPU: the builder of the same line, for GPUs of the same generation."""
    pytest.importorskip("tensorrt_rtx")
    net = NETS[family]
    precision = {**mixed_precision(net, TENSORRT, "fp16")}
    TENSORRT.build(net, precision, calibrate(net, images(4, net.input_size)), tmp_path)
    for name in ("model.onnx", "model-fp16.onnx"):
        assert len(build_plan((tmp_path / name).read_bytes(), ("SM86",))) > 10_000


def test_a_tensor_beyond_fp16_stays_in_fp32_with_the_operators_that_meet_it(tmp_path: Path) -> None:
    """In the typed graph by its type, on TensorRT 8.5 by its name."""
    net, narrow, wide = small_net("fused"), tmp_path / "narrow", tmp_path / "wide"
    ranges = calibrate(net, images(4))
    TENSORRT.build(net, {"engine": "fp16"}, ranges, narrow)
    assert spec_of(narrow)["options"]["builds"][0]["fp32_nodes"] == []
    large = next(name for name in ranges.limits if name.startswith("blocks.s2_1") and "conv" in name)
    TENSORRT.build(net, {"engine": "fp16"}, Ranges({**ranges.limits, large: (-9000.0, 10.0)}), wide)
    weak = spec_of(wide)["options"]["builds"][0]
    assert large in weak["fp32_nodes"] and "OBEY_PRECISION_CONSTRAINTS" in weak["builder_flags"]
    assert {"--fp16", "--precisionConstraints=obey", "--onnx=model.onnx"} <= set(weak["trtexec"])
    strong = spec_of(wide)["options"]["builds"][-1]["trtexec"]
    assert "--buildOnly" in weak["trtexec"] and "--skipInference" in strong, "which trtexec 8.5 does not know"
    assert {"--stronglyTyped", "--onnx=model-fp16.onnx"} <= set(strong) and "--fp16" not in strong
    model = onnx.load(wide / "model-fp16.onnx")
    kinds = {info.name: info.type.tensor_type.elem_type for info in model.graph.value_info}
    assert kinds[large] == onnx.TensorProto.FLOAT
    assert set(kinds.values()) == {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
    onnx.checker.check_model(onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True))


@pytest.mark.parametrize(
    ("jetpack", "files"), [("5.1", ["model.onnx"]), ("6.2", ["model-fp16.onnx"]), ("7.2.2", ["model-fp16.onnx"])]
)
def test_with_a_jetpack_there_is_the_one_graph_that_its_tensorrt_takes(
    tmp_path: Path, jetpack: str, files: list[str]
) -> None:
    TensorRtTarget(load_device("jetson-agx-orin"), jetpack).build(small_net(), {"engine": "fp16"}, None, tmp_path)
    spec = spec_of(tmp_path)
    assert list(spec["files"].values()) == files
    assert len(spec["options"]["builds"]) == 1 and spec["options"]["jetpack"] == jetpack


def test_a_jetpack_that_is_unknown_or_of_another_board_is_refused() -> None:
    board = load_device("jetson-orin-nano")
    with pytest.raises(UserError, match=r"unknown JetPack '6\.3': did you mean"):
        TensorRtTarget(board, "6.3")
    for other in ("7.0", "7.2.2"):
        line = rf"JetPack {other} does not run on device jetson-orin-nano: give one of 5\.1, 6\.0, 6\.1, 6\.2$"
        with pytest.raises(UserError, match=line):
            TensorRtTarget(board, other)


def test_a_board_of_one_s_own_runs_the_jetpacks_that_its_file_names() -> None:
    shipped = load_device("jetson-orin-nano")
    mine = shipped.model_copy(update={"name": "my-camera"})
    with pytest.raises(
        UserError, match=r"JetPack 7\.1 does not run on device my-camera: give one of 5\.1, 6\.0, 6\.1, 6\.2$"
    ):
        TensorRtTarget(mine, "7.1")
    flashed = shipped.systems[3].model_copy(update={"name": "JetPack 6.2.1"})
    one = mine.model_copy(update={"systems": (flashed,)})
    assert TensorRtTarget(one, "6.2").versions == ("10.3.0",)
    with pytest.raises(UserError, match=r"give one of 6\.2$"):
        TensorRtTarget(one, "6.1")
    assert TensorRtTarget(mine.model_copy(update={"systems": ()}), "7.1").jetpack == "7.1", "its file names none"


def test_a_jetpack_decides_graphs_of_tensorrt_alone() -> None:
    with pytest.raises(UserError, match=r"JetPack 6\.2 given for onnxruntime: .* the target tensorrt alone"):
        ExportRequest("onnxruntime", jetpack="6.2").find_targets(small_net())
    first, second = ExportRequest(("onnxruntime", "tensorrt"), jetpack="6.2").find_targets(small_net())
    assert isinstance(second, TensorRtTarget) and second.jetpack == "6.2" and first.traits.name == "onnxruntime"


def test_opening_is_refused_with_where_it_is_built(tmp_path: Path) -> None:
    TENSORRT.build(small_net(), {}, None, tmp_path)
    with pytest.raises(UserError, match=r"a Jetson board, which builds it from model\.onnx: measure it there"):
        open_engine(tmp_path)
