"""Operators that FP16 cannot hold, by the range of their values and constants.

What calibration saw of a tensor is taken as it was measured; parts of an operator that no calibration sees are bounded
from what they read. FP16 ends at 65,504, and below 2^-14 its steps no longer shrink with a value.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edgemtl.models.quantization import HALF_LARGEST, HALF_ROOM, Ranges

__all__ = ["wide_nodes"]

_SMALLEST_NORMAL = 2.0**-14
_EXACT_INTEGERS = 2048
_AT_MOST_ONE = frozenset({"Erf", "Sigmoid", "Softmax", "Tanh"})
Bounds = Sequence[float]


def wide_nodes(model: onnx.ModelProto, ranges: Ranges | None) -> frozenset[str]:
    """Names of the nodes that must compute in FP32; parts of one operator stay together.

    These are nodes that read or write a tensor whose values, or a constant that, FP16 cannot hold, and those that count
    tokens beyond 2,048, up to where FP16 has every integer. An operator and the `DequantizeLinear` of all that it reads
    go together: a cast between them would take its INT8 away. Without `ranges` constants and counts alone decide.
    """
    bounds = _bounds(model, ranges or Ranges({}))
    constants = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    counts = _Counts(model.graph)
    owner = _owners(model.graph)
    wide = set()
    for node in model.graph.node:
        too_large = any(bounds.get(name, 0.0) > HALF_LARGEST for name in (*node.input, *node.output))
        settings = node.op_type == "Resize"
        unfit = not settings and any(_unfit(constants[name]) for name in node.input if name in constants)
        if too_large or unfit or counts.are_inexact(node):
            wide.add(owner[node.name])
    names = {node.name for node in model.graph.node if owner[node.name] in wide}
    return frozenset(names | _with_readers(model.graph, names))


def _with_readers(graph: onnx.GraphProto, wide: Container[str]) -> set[str]:
    """Operators that read rounded tensors and are wide, or read one that is, each with all its `DequantizeLinear`.

    One of those may serve several operators (a weight that is shared), which then go together.
    """
    writers = {node.output[0]: node.name for node in graph.node if node.op_type == "DequantizeLinear"}
    groups = [
        {node.name, *(writers[name] for name in node.input if name in writers)}
        for node in graph.node
        if any(name in writers for name in node.input)
    ]
    joined: set[str] = set()
    while more := [group for group in groups if not group <= joined and any(n in wide or n in joined for n in group)]:
        joined.update(*more)
    return joined


def _unfit(tensor: TensorProto) -> bool:
    largest = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))
    return largest > HALF_LARGEST or 0 < largest < _SMALLEST_NORMAL


def _owners(graph: onnx.GraphProto) -> dict[str, str]:
    """The operator that each node is a part of: the shortest name of one of its kind that its own begins with."""
    names = defaultdict(set)
    for node in graph.node:
        names[node.doc_string].add(node.name)
    owners = {}
    for node in graph.node:
        parts = node.name.split(".")
        prefixes = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
        alike = names[node.doc_string] if node.doc_string else {node.name}
        owners[node.name] = next(prefix for prefix in prefixes if prefix in alike)
    return owners


class _Counts:
    """Casts of integers to floats, and how many tokens they may count."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        infos = (*graph.value_info, *graph.input, *graph.output)
        self._types = {info.name: info.type.tensor_type for info in infos}

    def are_inexact(self, node: onnx.NodeProto) -> bool:
        kind = self._types.get(node.input[0]) if node.op_type == "Cast" else None
        if kind is None or kind.elem_type != TensorProto.INT64:
            return False
        return max((size.dim_value for size in kind.shape.dim), default=0) > _EXACT_INTEGERS


def _bounds(model: onnx.ModelProto, ranges: Ranges) -> dict[str, float]:
    """The largest magnitude that each tensor may have; tensors of which nothing is known are left out."""
    bounds = {name: HALF_ROOM * max(-low, high) for name, (low, high) in ranges.limits.items()}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            bounds[tensor.name] = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))
    shapes = _Shapes(model.graph)
    writers = {name: node.op_type for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        inputs = [bounds.get(name, math.nan) for name in node.input]
        result = _bound(node, inputs, shapes, writers)
        for name in node.output:
            if not math.isnan(result):
                bounds.setdefault(name, result)
    return bounds


class _Shapes:
    def __init__(self, graph: onnx.GraphProto) -> None:
        infos = (*graph.value_info, *graph.input, *graph.output)
        self._shapes = {info.name: [size.dim_value for size in info.type.tensor_type.shape.dim] for info in infos}

    def last(self, name: str) -> int:
        """The size of a tensor's last dimension; 1 where it is not known."""
        shape = self._shapes.get(name)
        return max(shape[-1], 1) if shape else 1


def _bound(node: onnx.NodeProto, inputs: Bounds, shapes: _Shapes, writers: Mapping[str, str]) -> float:
    """The largest magnitude of what a node writes, NaN where its inputs' are not known."""
    if node.op_type in _AT_MOST_ONE:
        return 1.0
    if node.op_type == "MatMul":
        terms = 1 if writers.get(node.input[0]) == "Softmax" else shapes.last(node.input[0])  # rows that sum to one
        return terms * inputs[0] * inputs[1]
    if node.op_type == "ReduceSum":
        return shapes.last(node.input[0]) * inputs[0]
    rule = _RULES.get(node.op_type)
    return math.nan if rule is None else rule(inputs)


def _first(inputs: Bounds) -> float:
    return inputs[0]


_RULES: dict[str, Callable[[Bounds], float]] = {
    **dict.fromkeys(
        ("Cast", "Clip", "DepthToSpace", "DequantizeLinear", "Flatten", "Gather", "GatherElements", "GlobalAveragePool",
         "HardSwish", "Identity", "MaxPool", "QuantizeLinear", "ReduceMax", "ReduceMean", "Relu", "Reshape", "Resize",
         "Slice", "Split", "Squeeze", "TopK", "Transpose", "Unsqueeze"), _first,
    ),
    "Add": sum,
    "Concat": max,
    "Mul": math.prod,
    "Sqrt": lambda inputs: math.sqrt(inputs[0]),
    "Sub": sum,
}  # fmt: skip
