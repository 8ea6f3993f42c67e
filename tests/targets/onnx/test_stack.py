"""Joined experts compute what separate ones do, from the weights that were stored before; others stay as they are."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
import torch
from experts import experts_yaml, largest_net
from onnx import TensorProto, numpy_helper
from onnx_oracle import kinds, run

from edgemtl.models import MultiTaskNet
from edgemtl.models.graph.graph import trace
from edgemtl.models.quantization import QuantScheme, calibrate
from edgemtl.targets.onnx.dispatch import DispatchPolicy
from edgemtl.targets.onnx.emit import emit_graph
from edgemtl.targets.onnx.quantize import quantize
from edgemtl.targets.onnx.stack import stack_experts
from edgemtl.tasks import make_task

TASKS = (make_task("depth", "depth"), make_task("kind", "classification", 4))
YAML = experts_yaml("kept: [4], top_k: [2], capacity: 1.25", hidden="[32]")
MIXTURES = 4
"""Two layers, each with the windows of two tasks."""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> MultiTaskNet:
    return largest_net(tmp_path_factory.mktemp("space"), YAML, TASKS)


def stacked(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stack_experts(copy)
    onnx.checker.check_model(copy, full_check=True)
    return copy


def weights(model: onnx.ModelProto) -> int:
    return sum(math.prod(t.dims) for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)


@pytest.mark.parametrize(("window", "stored"), [(4, "apart"), (6, "joined")])
def test_joined_experts_compute_the_same_from_the_same_weights(
    tmp_path_factory: pytest.TempPathFactory, window: int, stored: str
) -> None:
    """Experts of overlapping windows are stored one by one; where all tasks reach the same they are one constant."""
    net = largest_net(tmp_path_factory.mktemp("window"), YAML.replace("kept: [4]", f"kept: [{window}]"), TASKS)
    model = emit_graph(trace(net), DispatchPolicy("buckets"))
    joined = stacked(model)
    image = np.random.default_rng(0).standard_normal((1, 3, 64, 96), np.float32)
    for one, other in zip(run(model, {"image": image}), run(joined, {"image": image}), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert weights(joined) == weights(model)
    assert kinds(model)["Split"] == MIXTURES
    assert not kinds(joined)["Split"]
    assert kinds(model)["Gemm"] - kinds(joined)["Gemm"] == MIXTURES * window * 2
    assert kinds(joined)["MatMul"] - kinds(model)["MatMul"] == MIXTURES * 2
    assert any(tensor.name.endswith(".joined") for tensor in joined.graph.initializer) is (stored == "joined")
    assert kinds(joined)["Concat"] - kinds(model)["Concat"] == (MIXTURES * 3 if stored == "apart" else -MIXTURES)


def test_experts_whose_tokens_data_decides_stay_apart(net: MultiTaskNet) -> None:
    model = emit_graph(trace(net), DispatchPolicy("segments"))
    assert kinds(stacked(model)) == kinds(model)


@pytest.mark.parametrize(("window", "stored"), [(4, "apart"), (6, "joined")])
def test_rounded_experts_keep_their_own_scales(
    tmp_path_factory: pytest.TempPathFactory, window: int, stored: str
) -> None:
    """Block b2 is INT8, b4 is float: the experts of both are joined, each with its like."""
    net = largest_net(tmp_path_factory.mktemp("window"), YAML.replace("kept: [4]", f"kept: [{window}]"), TASKS)
    images = torch.randn(4, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    precision = {name: "int8" if name == "b2" else "float" for name in net.blocks}
    model = quantize(
        emit_graph(trace(net), DispatchPolicy("buckets")), precision, calibrate(net, [images]), QuantScheme("uint8")
    )
    joined = stacked(model)
    assert not kinds(joined)["Split"]
    assert kinds(model)["Gemm"] - kinds(joined)["Gemm"] == MIXTURES * window * 2
    rounded = {t.name for t in joined.graph.initializer if ".experts." in t.name and t.data_type == TensorProto.INT8}
    assert rounded and all(name.endswith(".joined") for name in rounded) is (stored == "joined")
    scales = [numpy_helper.to_array(t) for t in joined.graph.initializer if t.name.endswith(".read.scale")]
    assert scales and all(len(each) == window for each in scales)
    assert any(len(set(each.tolist())) > 1 for each in scales)
    feeds = {"image": images[:1].numpy()}
    for one, other in zip(run(model, feeds), run(joined, feeds), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
