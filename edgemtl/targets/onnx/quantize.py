"""Writes a quantization plan into an ONNX model: one rounding a tensor, one reader's copy of the way back.

Every reader gets its own `DequantizeLinear`, because runtimes fuse it into that reader; it then also moves into the
reader's task when unwanted tasks are cut out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgemtl.models.quantization import Parameters, QuantScheme, Ranges, parameters_of, plan_quantization, weight_scales
from edgemtl.runtime import block_of

__all__ = ["quantize"]


@dataclass(frozen=True)
class _Operator:
    """The facts about an ONNX node that `plan_quantization` needs."""

    name: str
    op: str
    inputs: tuple[str, ...]
    output: str
    block: str


def quantize(
    model: onnx.ModelProto, precision: Mapping[str, str], ranges: Ranges, scheme: QuantScheme
) -> onnx.ModelProto:
    """The model with INT8 where `precision` says so, in the form that `scheme` describes.

    `model` comes from `emit`: node names tell blocks, tensors have shapes. The original is left as it is.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    operators = [
        _Operator(
            node.name,
            node.doc_string or node.op_type,  # parts of an operator are not what they look like alone
            tuple(name for name in node.input if name and name not in constants),
            node.output[0],
            block_of(node.name),
        )
        for node in model.graph.node
    ]
    plan = plan_quantization(operators, precision, scheme, [output.name for output in model.graph.output])
    if not (plan.weights or plan.quantized or plan.entries):
        return model
    writer = _Writer(model, scheme)
    tensors = {name: parameters_of(ranges[plan.source.get(name, name)], scheme) for name in plan.quantized}
    numbers = {operator.name: operator.inputs for operator in operators}
    entered = {numbers[name][number] for name, number in plan.entries}
    tensors |= {name: parameters_of(ranges[name], scheme) for name in entered}
    for node, operator in zip(model.graph.node, operators, strict=True):
        if operator.op in scheme.passthrough_ops and operator.output in plan.quantized:
            writer.hand_through(node)
            continue
        read = {name for name in operator.inputs if name in plan.quantized}
        read |= {name for number, name in enumerate(operator.inputs) if (node.name, number) in plan.entries}
        entering = tensors.get(operator.inputs[0]) if node.name in plan.weights else None
        writer.add(node, {name: tensors[name] for name in read}, entering, operator.output in plan.quantized, tensors)
    return writer.finish(plan.quantized, tensors)


class _Writer:
    def __init__(self, model: onnx.ModelProto, scheme: QuantScheme) -> None:
        self.model, self.scheme = model, scheme
        self.arrays = {tensor.name: tensor for tensor in model.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.made: dict[str, TensorProto] = {}
        self.infos: list[onnx.ValueInfoProto] = []
        self.shapes = {info.name: info for info in (*model.graph.value_info, *model.graph.output, *model.graph.input)}
        self.outputs = {output.name for output in model.graph.output}

    def add(
        self, node: onnx.NodeProto, read: Mapping[str, Parameters], entering: Parameters | None, stored: bool,
        tensors: Mapping[str, Parameters],
    ) -> None:  # fmt: skip
        """Append one operator, reading `read` through eight bits, with int8 weights where `entering` is given."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for name, parameters in read.items():
            back = self._back(name, node.name, parameters)
            copy.input[:] = [back if value == name else value for value in copy.input]
        if entering is not None:
            self._weights(copy, entering)
        name = node.output[0]
        if stored:
            copy.output[0] = raw = f"{name}.real"
            self._info(raw, name, TensorProto.FLOAT)
        self.nodes.append(copy)
        if stored:
            self._round(raw, name, tensors[name])

    def hand_through(self, node: onnx.NodeProto) -> None:
        """Append an operator that moves eight-bit values as they are, from its input's twin to its output's."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        name = node.output[0]
        copy.input[0], copy.output[0] = f"{node.input[0]}.q", f"{name}.q"
        self.nodes.append(copy)
        self._info(copy.output[0], name, self._eight_bit)

    @property
    def _eight_bit(self) -> int:
        return TensorProto.UINT8 if self.scheme.activation == "uint8" else TensorProto.INT8

    def _round(self, source: str, name: str, parameters: Parameters) -> str:
        """`QuantizeLinear` of the tensor `source`, once; returns the name of its eight-bit twin."""
        twin = f"{name}.q"
        if twin not in self.shapes:
            self.nodes.append(
                helper.make_node("QuantizeLinear", [source, *self._scale(name, parameters)], [twin], name=twin)
            )
            self._info(twin, name, self._eight_bit)
        return twin

    def _back(self, name: str, reader: str, parameters: Parameters) -> str:
        """`DequantizeLinear` of the tensor's twin for one reader; rounds it first where nobody has."""
        twin, back = self._round(name, name, parameters), f"{name}.for.{reader}"
        if back not in self.shapes:
            node = helper.make_node("DequantizeLinear", [twin, *self._scale(name, parameters)], [back], name=back)
            self.nodes.append(node)
            self._info(back, name, TensorProto.FLOAT)
        return back

    def _scale(self, name: str, parameters: Parameters) -> list[str]:
        kind = np.uint8 if self.scheme.activation == "uint8" else np.int8
        scale = self._constant(f"{name}.scale", np.array(parameters.scale, np.float32))
        return [scale, self._constant(f"{name}.zero", np.array(parameters.zero, kind))]

    def _weights(self, node: onnx.NodeProto, entering: Parameters) -> None:
        weight = numpy_helper.to_array(self.arrays[node.input[1]]).astype(np.float32)
        bias = numpy_helper.to_array(self.arrays[node.input[2]]) if len(node.input) > 2 else None
        scales, limit = weight_scales(weight, self.scheme, bias, entering), self.scheme.weight_limit
        shaped = scales.reshape(-1, *[1] * (weight.ndim - 1))
        eight = np.clip(np.rint(weight / shaped), -limit, limit).astype(np.int8)
        node.input[1] = self._dequantized(node.input[1], eight, scales)
        if bias is not None and self.scheme.bias == "int32":
            steps = scales * np.float32(entering.scale)
            node.input[2] = self._dequantized(node.input[2], np.rint(bias / steps).astype(np.int32), steps)

    def _dequantized(self, name: str, values: NDArray[np.generic], scales: NDArray[np.float32]) -> str:
        """A constant in integers and the node that turns it back, channel by channel."""
        back = f"{name}.back"
        if back not in self.shapes:
            inputs = [
                self._constant(f"{name}.q", values),
                self._constant(f"{name}.scale", scales),
                self._constant(f"{name}.zero", np.zeros(len(scales), values.dtype)),
            ]
            self.nodes.append(helper.make_node("DequantizeLinear", inputs, [back], name=back, axis=0))
            self.shapes[back] = helper.make_tensor_value_info(back, TensorProto.FLOAT, values.shape)
            self.infos.append(self.shapes[back])
        return back

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        if name not in self.made:
            self.made[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
        return name

    def _info(self, name: str, like: str, kind: int) -> None:
        tensor_type = self.shapes[like].type.tensor_type if like in self.shapes else None
        shape = None  # how many tokens an expert gets is not known ahead
        if tensor_type is not None and tensor_type.HasField("shape"):
            shape = [size.dim_value if size.HasField("dim_value") else None for size in tensor_type.shape.dim]
        self.shapes[name] = helper.make_tensor_value_info(name, kind, shape)
        self.infos.append(self.shapes[name])

    def finish(self, stored: frozenset[str], tensors: Mapping[str, Parameters]) -> onnx.ModelProto:
        """The whole model, with only the constants that are still read."""
        for name in sorted(stored & self.outputs):
            inputs = [f"{name}.q", *self._scale(name, tensors[name])]
            self.nodes.append(helper.make_node("DequantizeLinear", inputs, [name], name=f"{name}.out"))
        read = {name for node in self.nodes for name in node.input}
        written = {name for node in self.nodes for name in node.output}
        initializers = [tensor for name, tensor in {**self.arrays, **self.made}.items() if name in read]
        graph = helper.make_graph(
            self.nodes, self.model.graph.name, self.model.graph.input, self.model.graph.output, initializers
        )
        infos = [*self.model.graph.value_info, *self.infos]
        graph.value_info.extend(info for info in infos if info.name in written and info.name not in self.outputs)
        result = onnx.ModelProto()
        result.CopyFrom(self.model)
        result.graph.CopyFrom(graph)
        return result
