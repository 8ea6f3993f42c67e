"""A shuffle of many channels is written otherwise and computes the same; one of few stays what it is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from edgemtl.targets.onnx.shuffle import transpose_shuffles


def shuffle(kept: int, factor: int) -> onnx.ModelProto:
    """Two convolution-like identities around a shuffle that leaves `kept` channels."""
    inner = [1, kept * factor**2, 3, 5]
    nodes = [
        helper.make_node("Identity", ["image"], ["deep"], name="deep"),
        helper.make_node("DepthToSpace", ["deep"], ["wide"], name="wide", blocksize=factor, mode="CRD"),
    ]
    sides = helper.make_tensor_value_info("image", TensorProto.FLOAT, inner)
    out = helper.make_tensor_value_info("wide", TensorProto.FLOAT, [1, kept, 3 * factor, 5 * factor])
    model = helper.make_model(
        helper.make_graph(nodes, "shuffle", [sides], [out]), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    return onnx.shape_inference.infer_shapes(model)


@pytest.mark.parametrize(("kept", "factor", "replaced"), [(16, 2, True), (21, 4, True), (15, 4, False), (1, 2, False)])
def test_many_channels_are_transposed_and_nothing_changes(kept: int, factor: int, replaced: bool) -> None:
    model = shuffle(kept, factor)
    image = np.random.default_rng(0).standard_normal((1, kept * factor**2, 3, 5), np.float32)
    (expected,) = ReferenceEvaluator(model).run(None, {"image": image})
    transpose_shuffles(model)
    onnx.checker.check_model(model, full_check=True)
    assert ("DepthToSpace" not in {node.op_type for node in model.graph.node}) is replaced
    (found,) = ReferenceEvaluator(model).run(None, {"image": image})
    np.testing.assert_array_equal(found, expected)
