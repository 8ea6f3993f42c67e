"""The count of an exported file is the plan's own, in FP32, INT8 and inside conditions."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemtl.devices import load_device
from edgemtl.export.bundle import cost_of
from edgemtl.models.quantization import calibrate
from edgemtl.profiling import count_graph
from edgemtl.targets import ExportTarget, emit, find_target, quantize
from edgemtl.testing import images, small_net

ONNXRUNTIME = find_target("onnxruntime")
OPENVINO = find_target("openvino")
TENSORRT_RTX = find_target("tensorrt-rtx")
HLS = find_target("hls", load_device("zcu104"))


def test_counts_of_the_file_are_those_of_the_plan(tmp_path: Path) -> None:
    net = small_net()
    plan, cost = net.plan.cost(), count_graph(emit(net))
    assert (cost.total.flops, cost.total.params) == (plan.flops, plan.params)
    assert cost.total.weight_bytes == pytest.approx(plan.weight_bytes, abs=100), "a few scalars beside the weights"
    for task in ("semseg", "depth", "normals"):
        alone = net.plan.cost(tasks=[task])
        assert (cost.paths[task].flops, cost.paths[task].params) == (alone.flops, alone.params)
    ONNXRUNTIME.build(net, {"engine": "fp32"}, None, tmp_path)
    inside = count_graph(tmp_path / "model.onnx")
    assert (inside.total.flops, inside.total.params) == (plan.flops, plan.params)
    assert inside.trunk.flops == cost.trunk.flops


@pytest.mark.parametrize("target", [ONNXRUNTIME, OPENVINO, TENSORRT_RTX], ids=lambda target: target.traits.name)
def test_bytes_under_int8_are_at_most_those_of_the_plan(target: ExportTarget) -> None:
    net = small_net("fused")
    precision = dict.fromkeys(net.blocks, "int8")
    model = quantize(emit(net), precision, calibrate(net, images(4)), target.scheme)
    cost = count_graph(model).total
    plan = net.plan.cost(precision, storage=target.traits.storage)
    assert (cost.flops, cost.params) == (plan.flops, plan.params)
    assert target.traits.storage.channel_bytes == target.scheme.channel_bytes
    convolutions = sum(len(block.convs) for block in net.plan.blocks)
    assert plan.weight_bytes - 10 * convolutions <= cost.weight_bytes <= plan.weight_bytes


def test_bytes_of_a_project_are_those_of_its_types_and_no_graphs() -> None:
    net = small_net("fused", "relu")
    bits = {name: "int12" for name in list(net.blocks)[::2]}
    cost = cost_of(net, {"engine": "fixed", **bits}, calibrate(net, images(4)), HLS)
    plan = net.plan.cost(bits, storage=HLS.traits.storage)
    assert (cost.weight_bytes, cost.params) == (plan.weight_bytes, plan.params)
    assert 3 * plan.params / 2 < plan.weight_bytes < 2.2 * plan.params, "16 and 12 bits a weight, 24 a bias"
