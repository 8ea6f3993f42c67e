"""Counts of ONNX files against sums done by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemtl.errors import UserError
from edgemtl.profiling import Count, count_graph

WEIGHT = numpy_helper.from_array(np.ones((8, 3, 3, 3), np.float32), "w")
BIAS = numpy_helper.from_array(np.ones(8, np.float32), "b")
CONV_FLOPS = 2 * 8 * 3 * 3 * 3 * 8 * 8


def _model(
    nodes: list[onnx.NodeProto], outputs: list[str], constants: list[TensorProto], **metadata: str
) -> onnx.ModelProto:
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8, 8])
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "test", [image], infos, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, metadata)
    return model


def _conv(source: str, target: str, weight: str = "w") -> onnx.NodeProto:
    return helper.make_node("Conv", [source, weight, "b"], [target], name=target, pads=[1, 1, 1, 1])


def test_one_convolution() -> None:
    cost = count_graph(_model([_conv("x", "y")], ["y"], [WEIGHT, BIAS]))
    assert cost.total == Count(CONV_FLOPS, 8 * 27 + 8, 4 * (8 * 27 + 8))
    assert cost.tasks == {"y": cost.total}
    assert cost.trunk == Count()


def test_what_tasks_share_counts_once_and_belongs_to_no_task() -> None:
    head = numpy_helper.from_array(np.ones((4, 512), np.float32), "h")
    nodes = [
        _conv("x", "t"),
        helper.make_node("Flatten", ["t"], ["f"]),
        helper.make_node("Gemm", ["f", "h"], ["a"], transB=1),
        helper.make_node("Relu", ["t"], ["r"]),
    ]
    tasks = json.dumps({"classes": {"outputs": ["a"]}, "map": {"outputs": ["r"]}})
    cost = count_graph(_model(nodes, ["a", "r"], [WEIGHT, BIAS, head], tasks=tasks))
    assert cost.trunk == Count(CONV_FLOPS, 224, 896)
    assert cost.tasks == {"classes": Count(2 * 4 * 512, 2048, 8192), "map": Count()}
    assert cost.total == cost.trunk + cost.tasks["classes"]
    assert cost.paths == {"classes": cost.total, "map": cost.trunk}


def test_constants_in_nodes_count_like_initializers() -> None:
    constant = helper.make_node("Constant", [], ["w"], value=WEIGHT)
    shape = numpy_helper.from_array(np.array([8], np.int64), "s")
    filled = helper.make_node(
        "ConstantOfShape", ["s"], ["b"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [0.5])
    )
    cost = count_graph(_model([constant, filled, _conv("x", "y")], ["y"], [shape]))
    assert (cost.total.flops, cost.total.params) == (CONV_FLOPS, 224)
    assert cost.total.weight_bytes == 896 + 8, "the shape itself is eight bytes"


def test_weights_and_work_inside_a_condition_count() -> None:
    value = helper.make_tensor_value_info
    inner = helper.make_graph(
        [_conv("x", "inner")], "then", [], [value("inner", TensorProto.FLOAT, [1, 8, 8, 8])], [WEIGHT, BIAS]
    )
    empty = helper.make_tensor("none", TensorProto.FLOAT, [0], [])
    other = helper.make_graph(
        [helper.make_node("Constant", [], ["skipped"], value=empty)],
        "else",
        [],
        [value("skipped", TensorProto.FLOAT, [0])],
    )
    wanted = numpy_helper.from_array(np.array(True), "c")
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=other)
    cost = count_graph(_model([node], ["y"], [wanted]))
    assert (cost.total.flops, cost.total.params) == (CONV_FLOPS, 224)


def test_eight_bit_weights_take_a_byte_and_scales_are_no_parameters() -> None:
    weight = numpy_helper.from_array(np.ones((8, 3, 3, 3), np.int8), "q")
    scale = numpy_helper.from_array(np.ones(8, np.float32), "s")
    nodes = [helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=0), _conv("x", "y")]
    cost = count_graph(_model(nodes, ["y"], [weight, scale, BIAS]))
    assert cost.total == Count(CONV_FLOPS, 224, 216 + 32 + 32)


def test_matrix_product_of_two_tensors() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["x", "t"], ["y"]),
    ]
    assert count_graph(_model(nodes, ["y"], [])).total == Count(2 * 3 * 8 * 8 * 8)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(UserError, match=r"bad\.onnx is no ONNX model"):
        count_graph(tmp_path / "bad.onnx")


def test_an_operator_that_cannot_be_counted_is_named_and_the_rest_is_counted() -> None:
    pairs = helper.make_node("CDist", ["rows", "rows"], ["far"], name="/far/CDist", domain="com.microsoft")
    nodes = [_conv("x", "y"), helper.make_node("Reshape", ["x", "s"], ["rows"]), pairs]
    shape = numpy_helper.from_array(np.array([-1, 8], np.int64), "s")
    model = _model(nodes, ["y", "far"], [WEIGHT, BIAS, shape])
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    cost = count_graph(model)
    assert cost.notes == (
        "CDist of com.microsoft '/far/CDist': its FLOPs are not counted, no rule says what it multiplies",
    )
    assert not cost.total.exact and not cost.tasks["far"].exact
    assert cost.tasks["y"] == Count(CONV_FLOPS, 224, 896), "the other head is not touched"
    assert (cost.total.params, cost.total.weight_bytes) == (224, 912)


def test_a_shape_that_nothing_tells_is_named() -> None:
    lengths = helper.make_tensor_value_info("lengths", TensorProto.INT64, [2])
    pieces = helper.make_node("Split", ["x", "lengths"], ["p", "q"], axis=3)
    table = numpy_helper.from_array(np.ones((8, 8), np.float32), "m")
    parted = _model([pieces, helper.make_node("MatMul", ["p", "m"], ["y"], name="product")], ["y"], [table])
    parted.graph.input.append(lengths)
    (note,) = count_graph(parted).notes
    assert note.startswith("MatMul 'product': its FLOPs are not counted, the shape of ")
    assert "Split" in note, "the runtime's reason: lengths of one do not make the whole"
