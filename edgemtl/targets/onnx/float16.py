"""An ONNX model in FP16 but for its inputs and outputs, for runtimes whose precision is that of the graph's types."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["to_half"]

OPSET = 19
"""The first opset whose QuantizeLinear and DequantizeLinear take FP16 scales."""


def to_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every float tensor in FP16; image and outputs stay FP32, so that callers see no difference.

    Scales become FP16 too, as the types of ONNX want; they keep eleven bits. The original is left as it is.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    half.opset_import[0].version = OPSET
    graph = half.graph
    settings = {node.input[2] for node in graph.node if node.op_type == "Resize"}
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in settings:
            values = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for info in graph.value_info:
        if info.type.tensor_type.elem_type == TensorProto.FLOAT:
            info.type.tensor_type.elem_type = TensorProto.FLOAT16
    nodes = [_renamed(node, graph) for node in graph.node]
    before = [_cast(info.name, f"{info.name}.half", TensorProto.FLOAT16) for info in graph.input]
    after = [_cast(f"{info.name}.half", info.name, TensorProto.FLOAT) for info in graph.output]
    del graph.node[:]
    graph.node.extend([*before, *nodes, *after])
    for info in (*model.graph.input, *model.graph.output):
        shape = [side.dim_value for side in info.type.tensor_type.shape.dim]
        graph.value_info.append(helper.make_tensor_value_info(f"{info.name}.half", TensorProto.FLOAT16, shape))
    return half


def _renamed(node: onnx.NodeProto, graph: onnx.GraphProto) -> onnx.NodeProto:
    """The node, reading and writing the FP16 twins of the graph's own inputs and outputs."""
    ends = {info.name for info in (*graph.input, *graph.output)}
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [f"{name}.half" if name in ends else name for name in node.input]
    copy.output[:] = [f"{name}.half" if name in ends else name for name in node.output]
    return copy


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}.cast", to=kind)
