"""Pads that wrap around, as circular convolutions have them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from own_nets import SIZE, model_of, saved, weight

from edgemtl.export import ExportRequest, export_own_net
from edgemtl.own import open_net, propose_tasks

PIXELS = np.random.default_rng(0).normal(0, 1, (1, 3, *SIZE)).astype(np.float32)


def wrapped(pads: list[int], axes: list[int] | None = None) -> onnx.ModelProto:
    """A pad that wraps, and a layer behind it that reads its result."""
    nodes = [
        helper.make_node("Pad", ["x", "ends", "", *(["axes"] if axes else [])], ["around"], mode="wrap"),
        helper.make_node("Conv", ["around", "w"], ["map"]),
    ]
    constants = [weight("w", 4, 3, 3, 3), numpy_helper.from_array(np.array(pads), "ends")]
    constants += [numpy_helper.from_array(np.array(axes), "axes")] if axes else []
    made = model_of(nodes, {"map": TensorProto.FLOAT, "around": TensorProto.FLOAT}, constants)
    made.opset_import[0].version = 19
    return made


@pytest.mark.parametrize(
    ("pads", "axes"),
    [
        ([0, 0, 1, 2, 0, 0, 3, 1], None),
        ([0, 0, 0, 2, 0, 0, 0, 0], None),
        ([1, 2, 3, 4], [-1, 2]),
        ([0] * 8, None),
        ([0, 0, SIZE[0], 0, 0, 0, SIZE[0], 0], None),
    ],
)
def test_a_pad_that_wraps_is_slices_that_are_joined(pads: list[int], axes: list[int] | None, tmp_path: Path) -> None:
    theirs = wrapped(pads, axes)
    net = open_net(str(saved(theirs, tmp_path)))
    assert "Pad" not in {node.op_type for node in net.model.graph.node}
    onnx.checker.check_model(net.model, full_check=True)
    session = onnxruntime.InferenceSession(net.model.SerializeToString())
    pad = onnxruntime.InferenceSession(theirs.SerializeToString())
    for name, value in zip(("map", "around"), pad.run(None, {"x": PIXELS}), strict=True):
        np.testing.assert_allclose(session.run([name], {"x": PIXELS})[0], value, rtol=1e-6, atol=1e-6)


def test_one_that_also_removes_values_stays(tmp_path: Path) -> None:
    net = open_net(str(saved(wrapped([0, 0, -1, 1, 0, 0, 1, 0]), tmp_path)))
    assert "Pad" in {node.op_type for node in net.model.graph.node}


def test_a_circular_convolution_goes_to_every_runtime(tmp_path: Path) -> None:
    net = open_net("own_nets:build_circular", SIZE)
    for target in ("onnxruntime", "openvino"):
        manifest = export_own_net(net, propose_tasks(net), ExportRequest(target), tmp_path / target)
        assert manifest.targets[target].parity
