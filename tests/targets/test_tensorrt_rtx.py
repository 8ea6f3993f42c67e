"""TensorRT-RTX engines are built without a GPU for every generation and precision, and refused where they would run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from edgemtl.devices import load_device
from edgemtl.errors import MissingDependencyError, UnsupportedError, UserError
from edgemtl.export import Evidence, ExportRequest, export_plain
from edgemtl.export.wrap import with_normalisation, with_postprocessing
from edgemtl.models.quantization import calibrate, simulate
from edgemtl.runtime import open_engine
from edgemtl.targets import TensorRtRtxTarget, emit, find_target, quantize
from edgemtl.targets.onnx.float16 import to_half
from edgemtl.targets.tensorrt_rtx import build_plan
from edgemtl.tasks import by_tensor
from edgemtl.testing import TargetConformance, images, mixed_precision, samples_for, small_net

TENSORRT_RTX = find_target("tensorrt-rtx")

pytest.importorskip("tensorrt_rtx")


class TestTensorRtRtx(TargetConformance):
    """The contract, but for running."""

    target = TENSORRT_RTX
    unstable_bytes = 256  # 199 bytes of 5.5 MB differed in 2 of 6 builds by TensorRT-RTX 1.7.1

    def test_weights_are_stored_once(self, tmp_path: Path) -> None:
        """One plan serves every subset; it holds kernels beside the weights."""
        self.build(small_net(), tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["engine.json", "engine.plan"]


@pytest.mark.parametrize("engine", ["fp32", "fp16"])
def test_every_precision_builds(tmp_path: Path, engine: str) -> None:
    net = small_net()
    TENSORRT_RTX.build(net, mixed_precision(net, TENSORRT_RTX, engine), calibrate(net, images(4)), tmp_path)
    assert (tmp_path / "engine.plan").stat().st_size > 10_000
    assert json.loads((tmp_path / "engine.json").read_text())["options"]["engine"] == engine


def test_another_generation_gives_another_plan(tmp_path: Path) -> None:
    net = small_net(widths=(16, 24))
    TensorRtRtxTarget(load_device("host"), "blackwell").build(net, {}, None, tmp_path / "new")
    TENSORRT_RTX.build(net, {}, None, tmp_path / "old")
    assert (tmp_path / "new" / "engine.plan").read_bytes() != (tmp_path / "old" / "engine.plan").read_bytes()
    with pytest.raises(UserError, match="did you mean blackwell"):
        TensorRtRtxTarget(load_device("host"), "blackwel")


@pytest.mark.parametrize("engine", ["fp32", "fp16"])
def test_a_plain_plan_builds_with_all_steps_inside(tmp_path: Path, engine: str) -> None:
    net = small_net(widths=(16, 24))
    precision = mixed_precision(net, TENSORRT_RTX, engine)

    def finish(model: onnx.ModelProto) -> onnx.ModelProto:
        return with_postprocessing(with_normalisation(model), net.tasks)

    spec = TENSORRT_RTX.build_plain(net, precision, calibrate(net, images(4)), tmp_path, finish)
    assert spec.files == {"plan": "engine.plan"} and spec.flags == {}
    assert (tmp_path / "engine.plan").stat().st_size > 10_000


def test_a_plain_plan_says_which_gpus_it_is_for(tmp_path: Path) -> None:
    """In the manifest and to people; the processor beside them has no part in it."""
    net = small_net(widths=(16, 24))
    samples = samples_for(net, 2)
    request = ExportRequest("tensorrt-rtx", portable=True)
    made = export_plain(net, "fp32", request, tmp_path / "plain", Evidence(samples, samples))
    record = made.targets["tensorrt-rtx"]
    assert (record.arithmetic, record.needs) == ("gpu", ())
    assert record.hardware == "NVIDIA GPUs of the ampere generation (SM80, SM86)"
    page = (tmp_path / "plain/README.md").read_text()
    assert f"| {record.hardware} |" in page and "every processor" not in page


def test_running_is_refused_with_what_it_needs(tmp_path: Path) -> None:
    TENSORRT_RTX.build(small_net(widths=(16, 24)), {}, None, tmp_path)
    with pytest.raises(UnsupportedError, match=r"NVIDIA GPU .* driver"):
        open_engine(tmp_path)


def test_an_operator_that_its_parser_refuses_is_named() -> None:
    model = emit(small_net(widths=(16, 24)))
    node = model.graph.node[3]
    node.op_type = "Unheard"
    with pytest.raises(UnsupportedError, match=rf"tensorrt-rtx .* refuses Unheard at {node.name}"):
        build_plan(model.SerializeToString(), ("SM86",))


def test_without_the_package_the_install_line_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgemtl\[tensorrt-rtx\]'"):
        TENSORRT_RTX.build(small_net(widths=(16, 24)), {}, None, tmp_path)


def test_what_is_built_in_fp16_and_int8_is_what_is_simulated() -> None:
    """The graph that the builder gets, evaluated by ONNX's reference in its own types."""
    net, image = small_net("fused", widths=(16, 24)), images(1)
    ranges = calibrate(net, images(8))
    for engine in ("fp32", "fp16"):
        precision = mixed_precision(net, TENSORRT_RTX, engine)
        model = quantize(emit(net), precision, ranges, TENSORRT_RTX.scheme)
        model = to_half(model) if engine == "fp16" else model
        model.opset_import[0].version = 19  # the reference evaluator has no older DequantizeLinear
        onnx.checker.check_model(model, full_check=True)
        names = [output.name for output in model.graph.output]
        found = ReferenceEvaluator(model).run(names, {"image": image.numpy()})
        simulated = by_tensor(simulate(net, precision, ranges, TENSORRT_RTX.scheme)(image))
        with torch.no_grad():
            exact = by_tensor(net(image))
        for name, value in zip(names, found, strict=True):
            assert value.dtype == np.float32
            rounding = (simulated[name] - exact[name]).norm().item()
            # Typed FP16 rounds after every operator, kernels only where they store.
            limit = 0.5 if engine == "fp32" else 1.0
            assert np.linalg.norm(value - simulated[name].numpy()) <= limit * rounding, (engine, name)
