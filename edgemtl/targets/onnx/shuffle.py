"""Sub-pixel shuffles of many channels as one transpose of five dimensions.

From 16 channels on OpenVINO's own operator leaves them innermost, as the convolution before it does, and then turns the
enlarged tensor over, which takes longer than a small net. Here the convolution's tensor is read with its channels
innermost, as it lies in memory: that transpose is none, and the other one moves whole rows of a block to their plane. A
reshape of planes would have OpenVINO turn the tensor over first. The batch, which is 1, is left out: of six dimensions
OpenVINO would make its own operator again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

__all__ = ["transpose_shuffles"]

_MANY = 16


def transpose_shuffles(model: onnx.ModelProto) -> None:
    """Replace, in place, every `DepthToSpace` (mode CRD) of known shape and batch 1 that leaves 16 channels or more."""
    graph = model.graph
    shapes = {info.name: [size.dim_value for size in info.type.tensor_type.shape.dim] for info in graph.value_info}
    nodes: list[NodeProto] = []
    for node in graph.node:
        shape = shapes.get(node.input[0], []) if node.op_type == "DepthToSpace" else []
        if len(shape) == 4 and shape[0] == 1 and all(shape) and shape[1] >= _MANY * _factor(node) ** 2:
            nodes += _transposed(graph, node, shape)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _factor(node: NodeProto) -> int:
    return int(next(attribute.i for attribute in node.attribute if attribute.name == "blocksize"))


def _transposed(graph: onnx.GraphProto, node: NodeProto, shape: Sequence[int]) -> Iterator[NodeProto]:
    """The operators that stand for one shuffle, whose input has this shape."""
    factor, (_, channels, height, width), output = _factor(node), shape, node.output[0]
    per_block = channels // factor**2
    innermost, pieces, turned = (f"{output}.{step}" for step in ("innermost", "pieces", "turned"))
    sizes = [height, width, per_block, factor, factor], [1, per_block, height * factor, width * factor]
    before, after = (numpy_helper.from_array(np.array(s, np.int64), f"{output}.size{len(s)}") for s in sizes)
    graph.initializer.extend([before, after])
    yield helper.make_node("Transpose", [node.input[0]], [innermost], name=innermost, perm=[0, 2, 3, 1])
    yield helper.make_node("Reshape", [innermost, before.name], [pieces], name=pieces)
    yield helper.make_node("Transpose", [pieces], [turned], name=turned, perm=[2, 0, 3, 1, 4])
    yield helper.make_node("Reshape", [turned, after.name], [output], name=node.name)
