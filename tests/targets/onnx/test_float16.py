"""FP16 graphs: what is narrowed, what stays in FP32 and why, and what it computes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edgemtl.models.quantization import Ranges, calibrate
from edgemtl.targets import check_graph, emit, find_target, quantize
from edgemtl.targets.onnx.float16 import to_half
from edgemtl.targets.onnx.magnitude import wide_nodes
from edgemtl.targets.tensorrt.lowering import lower_normalisations
from edgemtl.tasks import by_tensor
from edgemtl.testing import images, small_net
from edgemtl.testing.examples import experts_net


def run(model: onnx.ModelProto, image: torch.Tensor) -> dict[str, np.ndarray]:
    """Outputs by ONNX Runtime."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": image.numpy()}), strict=True))


@pytest.mark.parametrize("wide", [0, 1, 2])
def test_any_part_may_stay_in_fp32(wide: int) -> None:
    """None, every second node, or all: types agree everywhere, and outputs with the net."""
    net, image = small_net("fused"), images(1)
    model = emit(net)
    names = {node.name for number, node in enumerate(model.graph.node) if wide and number % (3 - wide) == 0}
    half = to_half(model, names)
    onnx.checker.check_model(half, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(half, check_type=True, strict_mode=True)
    assert {info.name for info in half.graph.input} == {"image"}
    assert all(info.type.tensor_type.elem_type == TensorProto.FLOAT for info in inferred.graph.output)
    with torch.no_grad():
        expected = by_tensor(net(image))
    for name, value in run(half, image).items():
        np.testing.assert_allclose(value, expected[name].numpy(), rtol=2e-2, atol=2e-2)


def test_nothing_is_wide_where_values_are_small_but_what_counts_and_what_is_tiny() -> None:
    """An epsilon of 1e-6 is no number of FP16: the whole normalisation stays in FP32, and nothing else does."""
    net = experts_net(1.0, (32, 64))
    model = emit(net)
    lower_normalisations(model)
    wide = wide_nodes(model, calibrate(net, images(4, (32, 64))))
    assert wide == {node.name for node in model.graph.node if node.doc_string == "LayerNormalization"} != set()


def test_a_measured_tensor_beyond_fp16_makes_all_that_meet_it_wide() -> None:
    model = emit(small_net("fused"))
    tensor = model.graph.node[4].output[0]
    wide = wide_nodes(model, Ranges({tensor: (-9000.0, 1.0)}))
    assert wide == {node.name for node in model.graph.node if tensor in (*node.input, *node.output)}
    assert wide_nodes(model, Ranges({tensor: (-8000.0, 1.0)})) == wide_nodes(model, None) == set()


def test_what_no_calibration_sees_is_bounded_by_what_it_reads() -> None:
    """A product of two tensors of 100 is 10,000 at most, times the room that every measured value has."""
    nodes = [helper.make_node("Mul", ["a", "b"], ["c"], name="c"), helper.make_node("Sqrt", ["c"], ["d"], name="d")]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "abcd"]
    model = helper.make_model(helper.make_graph(nodes, "g", infos[:2], infos[3:], value_info=infos[2:3]))
    assert wide_nodes(model, Ranges({"a": (0, 100.0), "b": (0, 100.0)})) == {"c", "d"}
    assert wide_nodes(model, Ranges({"a": (0, 10.0), "b": (0, 10.0)})) == set()


@pytest.mark.parametrize("op", ["Conv", "Add"])
def test_a_scale_that_fp16_cannot_hold_takes_its_reader_along_and_all_that_this_reads(op: str) -> None:
    """A cast between `DequantizeLinear` and its reader would leave an operator in float."""
    net, target = small_net("fused"), find_target("tensorrt")
    ranges, float_model = calibrate(net, images(4)), emit(net)
    tiny = next(node.input[0] for node in float_model.graph.node if node.op_type == op and node.input[0] != "image")
    ranges = Ranges({**ranges.limits, tiny: (-1e-3, 1e-3)})
    model = quantize(float_model, dict.fromkeys(net.blocks, "int8"), ranges, target.scheme)
    wide = wide_nodes(model, ranges)
    assert {node.op_type for node in model.graph.node if node.name in wide} >= {op, "DequantizeLinear"}
    half = to_half(model, wide)
    check_graph(half, ["10.3", "11.4"])
    rounded = {node.output[0] for node in half.graph.node if node.op_type == "DequantizeLinear"}
    assert not [node.name for node in half.graph.node if node.op_type == "Cast" and node.input[0] in rounded]


def test_integers_beyond_what_fp16_has_are_counted_in_fp32() -> None:
    def counting(tokens: int) -> onnx.ModelProto:
        nodes = [helper.make_node("Cast", ["i"], ["f"], name="f", to=TensorProto.FLOAT)]
        ends = [helper.make_tensor_value_info(n, k, [tokens]) for n, k in (("i", TensorProto.INT64), ("f", 1))]
        return helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:]))

    assert wide_nodes(counting(2048), None) == set()
    assert wide_nodes(counting(2049), None) == {"f"}


def test_axes_are_an_input_where_the_opset_reads_them_so() -> None:
    """Scales in FP16 need opset 19, which would take an attribute for every axis."""
    constants = [
        numpy_helper.from_array(np.array(0.1, np.float32), "s"),
        numpy_helper.from_array(np.zeros((), np.int8), "z"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="d"),
        helper.make_node("ReduceMax", ["d"], ["y"], name="y", axes=[1], keepdims=0),
    ]
    shapes = {"x": [2, 3], "d": [2, 3], "y": [2]}
    infos = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    graph = helper.make_graph(nodes, "g", [infos["x"]], [infos["y"]], constants, value_info=[infos["d"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    half = to_half(model)
    assert half.opset_import[0].version == 19
    onnx.checker.check_model(half, full_check=True)
    session = onnxruntime.InferenceSession(half.SerializeToString(), providers=["CPUExecutionProvider"])
    (value,) = session.run(None, {"x": np.array([[1, 2, 3], [6, 5, 4]], np.float32)})
    np.testing.assert_allclose(value, [3, 6], rtol=1e-2)
