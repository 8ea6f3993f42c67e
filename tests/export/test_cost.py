"""The count of an exported file is the plan's own, in FP32, INT8 and inside conditions."""

from __future__ import annotations

from pathlib import Path

import pytest
from nets import images, small_net

from edgemtl.export import emit, quantize
from edgemtl.export.targets import ONNXRUNTIME, OPENVINO
from edgemtl.models.quantization import calibrate
from edgemtl.profiling import count_graph


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


def test_bytes_under_int8_are_those_of_the_plan_but_for_zero_points() -> None:
    net = small_net("fused")
    precision = dict.fromkeys(net.blocks, "int8")
    model = quantize(emit(net), precision, calibrate(net, images(4)), OPENVINO.scheme)
    cost, plan = count_graph(model).total, net.plan.cost(precision)
    assert (cost.flops, cost.params) == (plan.flops, plan.params)
    assert cost.weight_bytes == pytest.approx(plan.weight_bytes, rel=0.05)
