"""Layer normalisation in operators that TensorRT 8.5 has: its parser reads the operator itself from 8.6 on.

Newer versions find the pattern and run one kernel, so that the same graph serves all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

__all__ = ["lower_normalisations"]

_OP = "LayerNormalization"
_EPSILON = 1e-5
"""ONNX's own default."""


def lower_normalisations(model: onnx.ModelProto) -> None:
    """Replace, in place, every `LayerNormalization` over the last axis by means, a product and a square root.

    Its parts carry its name before theirs, and say in `doc_string` what they are parts of. One over more axes stays, as
    does one whose mean or deviation is an output too.
    """
    graph = model.graph
    infos = (*graph.value_info, *graph.output)
    shapes = {info.name: [size.dim_value for size in info.type.tensor_type.shape.dim] for info in infos}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.op_type == _OP and _is_last(node, shapes[node.output[0]]):
            parts = _Parts(graph, node, shapes[node.output[0]])
            nodes.extend(parts.written())
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _is_last(node: NodeProto, shape: Sequence[int]) -> bool:
    axis = next((each.i for each in node.attribute if each.name == "axis"), -1)
    return axis in (-1, len(shape) - 1) and not any(node.output[1:])


class _Parts:
    def __init__(self, graph: onnx.GraphProto, node: NodeProto, shape: Sequence[int]) -> None:
        self._graph, self._node, self._shape = graph, node, list(shape)
        self._epsilon = next((each.f for each in node.attribute if each.name == "epsilon"), _EPSILON)

    def written(self) -> Iterator[NodeProto]:
        """(x - mean) / sqrt(mean((x - mean)^2) + epsilon) * weight + bias."""
        source, weight, *bias = filter(None, self._node.input)
        row = [*self._shape[:-1], 1]
        epsilon = numpy_helper.from_array(np.array(self._epsilon, np.float32), f"{self._node.name}.epsilon")
        self._graph.initializer.append(epsilon)
        yield self._part("ReduceMean", [source], "mean", row, axes=[-1], keepdims=1)
        yield self._part("Sub", [source, self._name("mean")], "centred", self._shape)
        yield self._part("Mul", [self._name("centred")] * 2, "squares", self._shape)
        yield self._part("ReduceMean", [self._name("squares")], "variance", row, axes=[-1], keepdims=1)
        yield self._part("Add", [self._name("variance"), epsilon.name], "above", row)
        yield self._part("Sqrt", [self._name("above")], "deviation", row)
        yield self._part("Div", [self._name("centred"), self._name("deviation")], "normal", self._shape)
        last, entering = "Mul", [self._name("normal"), weight]
        if bias:
            yield self._part(last, entering, "scaled", self._shape)
            last, entering = "Add", [self._name("scaled"), *bias]
        yield helper.make_node(last, entering, self._node.output[:1], name=self._node.name, doc_string=_OP)

    def _name(self, part: str) -> str:
        return f"{self._node.name}.{part}"

    def _part(self, op: str, inputs: Sequence[str], part: str, shape: Sequence[int], **attributes: Any) -> NodeProto:
        name = self._name(part)
        self._graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return helper.make_node(op, list(inputs), [name], name=name, doc_string=_OP, **attributes)
