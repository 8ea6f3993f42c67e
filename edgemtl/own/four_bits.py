"""Linear layers of a net of one's own with weights of four bits; what they read and give stays in float.

A layer's weights are cut along its input into groups of 32, each in steps of a scale of its own. They are written as
ONNX Runtime's `MatMulNBits`, which OpenVINO's reader turns into constants of four bits that its linear layers unpack as
they multiply. No runtime multiplies convolutions so: both would unpack their weights when an engine is opened.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgemtl.own.folding import keep_named, set_nodes, shape_of
from edgemtl.runtime import block_of
from edgemtl.targets import TaskModel
from edgemtl.traits import FOUR_BIT_GROUP

__all__ = ["four_bit_blocks", "in_four_bits", "round_groups"]

_LOWEST, _HIGHEST = -8, 7
_REFITS = 4
"""How often scales and steps are fitted to each other; later ones change no step of a thousand."""
_ROW_AXES = 2
_FLOAT_WAY = 1
"""MatMulNBits' `accuracy_level` that multiplies in float; the fastest one would round what enters to eight bits."""
_DOMAIN = "com.microsoft"


def four_bit_blocks(model: TaskModel) -> tuple[str, ...]:
    """Names of the blocks that have a linear layer whose weights may have four bits, in order.

    `model` is ready for rounding. A layer of less inputs than a group has is left in float.
    """
    layers = _Layers(model.model.graph)
    nodes = (node for node in model.model.graph.node if layers.weights_of(node) is not None)
    return tuple(dict.fromkeys(block_of(node.name) for node in nodes))


def in_four_bits(model: onnx.ModelProto, blocks: Collection[str]) -> onnx.ModelProto:
    """The model with the weights of these blocks' linear layers in four bits; it is ready for rounding, or rounded."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    writer = _Writer(result.graph)
    nodes = [made for node in result.graph.node for made in writer.written(node, block_of(node.name) in blocks)]
    outputs = {info.name for info in result.graph.output}
    set_nodes(result.graph, nodes)
    result.graph.initializer.extend(writer.made.values())
    result.graph.value_info.extend(writer.infos)
    keep_named(result.graph.initializer, {name for node in nodes for name in node.input} | outputs)
    if _DOMAIN not in (each.domain for each in result.opset_import):
        result.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return result


def round_groups(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights (N, K) as steps of -8 to 7 (N, groups, 32), zeros behind the last, and the groups' scales (N, groups).

    Three scales are tried: the furthest weight is step -8, so that no step is unused, or seven steps to either side.
    Each becomes that of least squares for its steps, and the steps those nearest by it, in turns, neither of which
    makes the error larger; the best one stays.
    """
    outputs, inputs = weight.shape
    groups = -(-inputs // FOUR_BIT_GROUP)
    values = np.zeros((outputs, groups * FOUR_BIT_GROUP))
    values[:, :inputs] = weight
    values = values.reshape(outputs, groups, FOUR_BIT_GROUP)
    furthest = np.take_along_axis(values, np.abs(values).argmax(axis=2, keepdims=True), axis=2)
    tried = np.stack([_refitted(values, furthest / steps) for steps in (_LOWEST, -_HIGHEST, _HIGHEST)])
    errors = np.square(_nearest(values, tried) * tried - values).sum(axis=3, keepdims=True)
    scales = np.take_along_axis(tried, errors.argmin(axis=0, keepdims=True), axis=0)[0].astype(np.float32)
    return _nearest(values, scales).astype(np.int8), scales[..., 0]


def _refitted(values: NDArray[np.float64], scales: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scales and steps fitted to each other by turns: the scales."""
    for _ in range(_REFITS):
        steps = _nearest(values, scales)
        squares = np.square(steps).sum(axis=2, keepdims=True)
        scales = np.where(squares > 0, (values * steps).sum(axis=2, keepdims=True) / np.maximum(squares, 1), scales)
    return scales


def _nearest(values: NDArray[np.float64], scales: NDArray[np.floating]) -> NDArray[np.float64]:
    """Steps nearest to values; zeros where a group has no scale."""
    usable = np.where(scales == 0, 1, scales)
    return np.clip(np.rint(values / usable), _LOWEST, _HIGHEST)


def _packed(steps: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Two steps a byte, the earlier one in its lower half, eight more than they are."""
    unsigned = (steps - _LOWEST).astype(np.uint8)
    return unsigned[..., 0::2] + np.uint8(16) * unsigned[..., 1::2]


class _Layers:
    """Constants and tensors of a graph, as far as they tell linear layers."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.infos = {info.name: info for info in (*graph.input, *graph.value_info, *graph.output)}

    def weights_of(self, node: onnx.NodeProto) -> NDArray[np.float32] | None:
        """The weights (N, K) of a linear layer whose weights may have four bits; None for any other operator."""
        if node.op_type not in ("Gemm", "MatMul") or node.domain not in ("", "ai.onnx") or node.doc_string:
            return None
        weight = self.constants.get(node.input[1])
        if weight is None or weight.data_type != TensorProto.FLOAT or len(weight.dims) != _ROW_AXES:
            return None
        info = self.infos.get(node.input[0])  # what a constant is multiplied with is read from the image, or is one
        if info is None or len(shape_of(info) or ()) < _ROW_AXES:
            return None
        values: NDArray[np.float32] = numpy_helper.to_array(weight)
        values = values if node.op_type == "Gemm" else values.T
        return values if values.shape[1] >= FOUR_BIT_GROUP else None


class _Writer:
    """Operators as they are written, and the constants and tensors that they add."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._layers = _Layers(graph)
        self.made: dict[str, TensorProto] = {}
        self.infos: list[onnx.ValueInfoProto] = []

    def written(self, node: onnx.NodeProto, chosen: bool) -> list[onnx.NodeProto]:
        """The operator as it is, or what stands for it where its weights are to have four bits."""
        weight = self._layers.weights_of(node) if chosen else None
        if weight is None:
            return [node]
        biases = [name for name in node.input[2:] if name]
        output = node.output[0]
        product = f"{output}.product" if biases else output
        made = helper.make_node(
            "MatMulNBits",
            [node.input[0], *self._constants(f"{node.input[1]}.{node.op_type}", weight)],
            [product],
            name=node.name,
            domain=_DOMAIN,
            K=weight.shape[1],
            N=weight.shape[0],
            bits=4,
            block_size=FOUR_BIT_GROUP,
            accuracy_level=_FLOAT_WAY,
        )
        if not biases:
            return [made]
        info = onnx.ValueInfoProto()
        info.CopyFrom(self._layers.infos[output])
        info.name = product
        self.infos.append(info)
        return [made, helper.make_node("Add", [product, *biases], [output], name=f"{node.name}.bias")]

    def _constants(self, name: str, weight: NDArray[np.float32]) -> tuple[str, str]:
        """Names of the packed weights and of their scales, of layers that share them once."""
        names = f"{name}.four", f"{name}.scales"
        if names[0] not in self.made:
            steps, scales = round_groups(weight)
            self.made[names[0]] = numpy_helper.from_array(_packed(steps), names[0])
            self.made[names[1]] = numpy_helper.from_array(scales, names[1])
        return names
