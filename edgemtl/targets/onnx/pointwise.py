"""1x1 convolutions that TensorRT's compiler must not turn into matrix products, since it then fails.

Its compiler fuses into such a product the element-wise operators that read it. Where these stand inside an `If` and the
convolution before it, TensorRT-RTX 1.7.1 moves the product into the branch and ends with `MyelinCheckException:
bb.cpp:137: CHECK(op->parent() == this || op->parent() == nullptr)`. Three operators show it: in FP16 a 1x1 convolution
of 256 channels or more to 256 or more, then an `If` whose branch is one `Relu`. It is built with 248 channels on either
side, in FP32, or with a larger kernel, a sum or another convolution between the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx
from onnx import NodeProto, TensorProto, helper

__all__ = ["keep_convolutions"]

_LEAST_CHANNELS = 256
"""Channels on both sides from which a 1x1 convolution in FP16 becomes a matrix product."""
_FUSED_BEFORE = frozenset(
    {"Cast", "Clip", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Mul", "Relu", "Sigmoid"}
)
"""Operators between the convolution and the `If` that become a part of the product."""
_READ_AS_THEY_ARE = frozenset({"Conv", "MatMul", "Resize"})
"""Readers inside a branch that no product is fused with."""


def keep_convolutions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with a dilation of 2 in each 1x1 convolution in FP16 that a branch would be fused with.

    A kernel of one value feels no dilation, so that the result is the same, and it is not taken for a matrix product.
    Returns the model itself where there is none; else the original is left as it is.
    """
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer if _is_half(tensor)}
    writers = {name: node for node in model.graph.node for name in node.output}
    names = {node.name for node in _sources(_fused_inputs(model.graph), writers) if _becomes_product(node, shapes)}
    if not names:
        return model
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for node in changed.graph.node:
        if node.name in names:
            attributes = [each for each in node.attribute if each.name != "dilations"]
            del node.attribute[:]
            node.attribute.extend([*attributes, helper.make_attribute("dilations", [2, 2])])
    return changed


def _is_half(tensor: TensorProto) -> bool:
    return bool(tensor.data_type == TensorProto.FLOAT16)


def _fused_inputs(graph: onnx.GraphProto) -> Iterator[str]:
    """Tensors that operators inside branches read and may be fused with what makes them."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                readers = (each for each in attribute.g.node if each.op_type not in _READ_AS_THEY_ARE)
                yield from (name for reader in readers for name in reader.input)


def _sources(names: Iterable[str], writers: dict[str, NodeProto]) -> Iterator[NodeProto]:
    """Nodes outside branches that these tensors come from by element-wise operators alone."""
    open_names, seen = list(names), set[str]()
    while open_names:
        name = open_names.pop()
        if name in seen or name not in writers:
            continue
        seen.add(name)
        if writers[name].op_type in _FUSED_BEFORE:
            open_names.extend(writers[name].input)
        else:
            yield writers[name]


def _becomes_product(node: NodeProto, shapes: dict[str, Iterable[int]]) -> bool:
    shape = list(shapes.get(node.input[1], ())) if node.op_type == "Conv" else []
    return len(shape) == 4 and shape[2:] == [1, 1] and min(shape[:2]) >= _LEAST_CHANNELS
