"""One product for queries, keys and values computes what three did, from the same weights, in float and in INT8."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from experts import experts_yaml, largest_net
from onnx import numpy_helper
from onnx_oracle import kinds, run

from edgemtl.models import MultiTaskNet
from edgemtl.models.graph.graph import trace
from edgemtl.models.quantization import QuantScheme, calibrate
from edgemtl.targets.onnx.emit import emit_graph
from edgemtl.targets.onnx.projections import join_projections
from edgemtl.targets.onnx.quantize import quantize
from edgemtl.tasks import make_task

TASKS = (make_task("depth", "depth"), make_task("kind", "classification", 4))


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> MultiTaskNet:
    return largest_net(tmp_path_factory.mktemp("space"), experts_yaml("kept: [4], top_k: [2]", hidden="[32]"), TASKS)


@pytest.fixture(scope="module")
def apart(net: MultiTaskNet) -> onnx.ModelProto:
    return emit_graph(trace(net))


@pytest.fixture(scope="module")
def joined(apart: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(apart)
    join_projections(copy)
    onnx.checker.check_model(copy, full_check=True)
    return copy


def numbers(model: onnx.ModelProto) -> int:
    return sum(numpy_helper.to_array(tensor).size for tensor in model.graph.initializer if tensor.data_type == 1)


def test_it_computes_the_same_from_the_same_weights(apart: onnx.ModelProto, joined: onnx.ModelProto) -> None:
    layers = sum(node.op_type == "Softmax" and node.doc_string == "Attention" for node in apart.graph.node)
    assert layers > 2
    assert kinds(apart)["Gemm"] - kinds(joined)["Gemm"] == 2 * layers
    assert kinds(joined)["Split"] - kinds(apart)["Split"] == layers
    assert numbers(joined) == numbers(apart), "weights that tasks share are stored once, joined too"
    image = np.random.default_rng(0).standard_normal((1, 3, 64, 96), np.float32)
    for one, other in zip(run(apart, {"image": image}), run(joined, {"image": image}), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_in_eight_bits_it_computes_the_same(net: MultiTaskNet, apart: onnx.ModelProto, joined: onnx.ModelProto) -> None:
    images = torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    precision = {name: "int8" for name in trace(net).block_tasks}
    ranges = calibrate(net, [images])
    scheme = QuantScheme("uint8", rounding="scaled")
    one, other = (quantize(model, precision, ranges, scheme) for model in (apart, joined))
    onnx.checker.check_model(other, full_check=True)
    assert kinds(other)["QuantizeLinear"] == kinds(one)["QuantizeLinear"]
    assert kinds(one)["DequantizeLinear"] > kinds(other)["DequantizeLinear"]
    feeds = {"image": images[:1].numpy()}
    for ours, theirs in zip(run(one, feeds), run(other, feeds), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
