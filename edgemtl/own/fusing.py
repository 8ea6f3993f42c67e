"""Normalisations, constant factors and constant sums folded into the convolution before them, as runtimes do in float.

In eight bits they do it no more: the convolution's result is rounded first, and what follows is computed in float.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from edgemtl.own.folding import keep_named, set_nodes

__all__ = ["fuse_layers", "linear_from_products"]

Array = NDArray[np.float64]
_CONV_AXES, _ROW_AXES = 4, 2


def fuse_layers(graph: onnx.GraphProto, outputs: Collection[str]) -> None:
    """Fold what is linear and constant behind each convolution into it, in place; `outputs` are tensors that stay.

    The convolution then writes what the last folded operator wrote.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    readers = {name: node for node in graph.node for name in node.input if uses[name] == 1}
    gone: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type != "Conv" or not _has_constants(node, constants):
            continue
        while (name := node.output[0]) in readers and name not in outputs:
            line = _line(readers[name], name, len(numpy_helper.to_array(constants[node.input[1]])), constants)
            if line is None:
                break
            _fold(graph, node, *line, constants)
            gone.append(readers[name])
            node.output[0] = readers[name].output[0]
    set_nodes(graph, [node for node in graph.node if not any(node is each for each in gone)])
    keep_named(graph.value_info, {name for node in graph.node for name in node.output})


def linear_from_products(graph: onnx.GraphProto, outputs: Collection[str]) -> None:
    """Make linear layers (`Gemm`) of products of rows with a constant matrix, and the constant sum behind, in place.

    `outputs` are tensors that stay. Products of more axes, tokens of an attention say, are left as they are.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    axes = {
        info.name: len(info.type.tensor_type.shape.dim) for info in (*graph.input, *graph.value_info, *graph.output)
    }
    uses = Counter(name for node in graph.node for name in node.input)
    readers = {name: node for node in graph.node for name in node.input if uses[name] == 1}
    gone: list[onnx.NodeProto] = []
    for node in graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "MatMul" else None
        if weight is None or len(weight.dims) != _ROW_AXES or axes.get(node.input[0]) != _ROW_AXES:
            continue
        node.op_type = "Gemm"
        after = readers.get(node.output[0])
        bias = _row_bias(after, node.output[0], weight.dims[1], constants) if after is not None else ""
        if after is not None and bias and node.output[0] not in outputs:
            node.input.append(bias)
            node.output[0] = after.output[0]
            gone.append(after)
    set_nodes(graph, [node for node in graph.node if not any(node is each for each in gone)])


def _row_bias(node: onnx.NodeProto, entering: str, width: int, constants: Mapping[str, TensorProto]) -> str:
    """The constant that an operator adds to each row, one number a column; empty where it does anything else."""
    others = [name for name in node.input if name != entering]
    if node.op_type != "Add" or len(others) != 1 or others[0] not in constants:
        return ""
    return others[0] if list(constants[others[0]].dims) == [width] else ""


def _has_constants(node: onnx.NodeProto, constants: Mapping[str, TensorProto]) -> bool:
    names = [name for name in node.input[1:] if name]
    if names[:1] and names[0] in constants and len(constants[names[0]].dims) != _CONV_AXES:
        return False
    return all(name in constants and constants[name].data_type == TensorProto.FLOAT for name in names)


def _line(
    node: onnx.NodeProto, entering: str, channels: int, constants: Mapping[str, TensorProto]
) -> tuple[Array, Array] | None:
    """Factor and shift of each channel where an operator is no more than that; None where it is more."""
    if node.op_type == "BatchNormalization" and len(node.output) == 1:
        if node.input[0] != entering or not constants.keys() >= set(node.input[1:]):
            return None
        values = (numpy_helper.to_array(constants[name]).astype(np.float64) for name in node.input[1:])
        scale, bias, mean, variance = values
        epsilon = next((each.f for each in node.attribute if each.name == "epsilon"), 1e-5)
        factor = scale / np.sqrt(variance + epsilon)
        return factor, bias - mean * factor
    if node.op_type not in ("Add", "Mul", "Sub", "Div") or len(node.input) != 2:
        return None
    other = node.input[1] if node.input[0] == entering else node.input[0]
    if other not in constants or (node.op_type in ("Sub", "Div") and node.input[0] != entering):
        return None
    value = _by_channel(numpy_helper.to_array(constants[other]), channels)
    if value is None or (node.op_type == "Div" and not value.all()):
        return None
    if node.op_type in ("Add", "Sub"):
        return np.ones(channels), value if node.op_type == "Add" else -value
    return value if node.op_type == "Mul" else 1 / value, np.zeros(channels)


def _by_channel(value: NDArray[np.generic], channels: int) -> Array | None:
    """One number a channel of a constant that meets (1, C, H, W); None where it is not the same at every place."""
    if value.size == 1:
        return np.full(channels, float(value.reshape(-1)[0]))
    whole = value.reshape((1,) * max(4 - value.ndim, 0) + value.shape)
    return whole.reshape(-1).astype(np.float64) if whole.shape == (1, channels, 1, 1) else None


def _fold(
    graph: onnx.GraphProto, node: onnx.NodeProto, factor: Array, shift: Array, constants: dict[str, TensorProto]
) -> None:
    weight = numpy_helper.to_array(constants[node.input[1]]).astype(np.float64)
    bias = np.zeros(len(weight))
    if len(node.input) > 2 and node.input[2]:
        bias = numpy_helper.to_array(constants[node.input[2]]).astype(np.float64)
    values = weight * factor.reshape(-1, *[1] * (weight.ndim - 1)), bias * factor + shift
    names = []
    for kind, value in zip(("weight", "bias"), values, strict=True):
        name = f"{node.name}.{kind}.folded{len(constants)}"
        tensor = numpy_helper.from_array(value.astype(np.float32), name)
        graph.initializer.append(tensor)
        constants[name] = tensor
        names.append(name)
    node.input[:] = [node.input[0], *names]
