"""An ONNX model in FP16 but for its inputs, outputs and what must stay in FP32.

It is for runtimes whose precision is that of the graph's types.
"""

from __future__ import annotations

from collections.abc import Container, Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["to_half"]

_OPSET_OF_HALF_SCALES = 19
"""The first opset whose QuantizeLinear and DequantizeLinear take FP16 scales."""
_OPSET_OF_AXES = 18
"""The first opset whose ReduceMax and ReduceMean read their axes."""


def to_half(model: onnx.ModelProto, wide: Container[str] = ()) -> onnx.ModelProto:
    """The model with every float tensor in FP16, except those that the nodes named in `wide` read and write.

    Image and outputs stay FP32, so that callers see no difference. Scales become FP16 too, as the types of ONNX want;
    they keep eleven bits. A cast stands wherever the two meet, one a tensor. The original is left as it is.
    """
    half = onnx.ModelProto()
    half.CopyFrom(model)
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        half.opset_import[0].version = max(half.opset_import[0].version, _OPSET_OF_HALF_SCALES)
    writer = _Writer(model.graph, wide)
    nodes = [_with_axes(each, half, writer) for node in model.graph.node for each in writer.written(node)]
    graph = helper.make_graph(
        nodes, model.graph.name, model.graph.input, model.graph.output, list(writer.constants.values())
    )
    graph.value_info.extend(writer.infos())
    half.graph.CopyFrom(graph)
    return half


class _Writer:
    """Says of each tensor whether it is FP16 or FP32 where it is made, and casts it where it is read otherwise."""

    def __init__(self, graph: onnx.GraphProto, wide: Container[str]) -> None:
        self._graph, self._wide = graph, wide
        infos = (*graph.value_info, *graph.input, *graph.output)
        self._infos = {info.name: info for info in infos}
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._ends = {info.name for info in (*graph.input, *graph.output)}
        self._floats = {info.name for info in infos if info.type.tensor_type.elem_type == TensorProto.FLOAT}
        self._floats |= {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
        self._half: set[str] = set()
        self._casts: dict[str, str] = {}
        self.constants: dict[str, TensorProto] = {}

    def written(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """The casts that a node needs before it, the node, and those of graph outputs that it makes."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        narrow = node.name not in self._wide
        for position, name in enumerate(node.input):
            setting = node.op_type == "Resize" and position > 0
            if name in self._stored:
                copy.input[position] = self._constant(name, narrow and not setting)
            elif name in self._floats:
                copy.input[position], cast = self._read(name, narrow)
                yield from cast
        for position, name in enumerate(node.output):
            if narrow and name in self._floats:
                self._half.add(name)
                copy.output[position] = f"{name}.half" if name in self._ends else name
        if narrow and node.op_type == "Cast":
            _narrow_cast(copy)
        yield copy
        for name in node.output:
            if name in self._half and name in self._ends:
                self._casts[name] = name
                yield _cast(f"{name}.half", name, TensorProto.FLOAT)

    def _constant(self, name: str, narrow: bool) -> str:
        tensor = self._stored[name]
        if not narrow or tensor.data_type != TensorProto.FLOAT:
            self.constants[name] = tensor
            return name
        twin = f"{name}.half"
        if twin not in self.constants:
            self.constants[twin] = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), twin)
        return twin

    def _read(self, name: str, narrow: bool) -> tuple[str, list[onnx.NodeProto]]:
        """The tensor in the type that a reader wants, and the cast to it where it is the first such reader."""
        made = f"{name}.half" if name in self._half and name in self._ends else name
        if narrow == (name in self._half):
            return made, []
        twin = name if name in self._casts else f"{name}.{'half' if narrow else 'float'}"
        if twin in self._casts:
            return twin, []
        self._casts[twin] = name
        return twin, [_cast(made, twin, TensorProto.FLOAT16 if narrow else TensorProto.FLOAT)]

    def infos(self) -> Iterator[onnx.ValueInfoProto]:
        """Type and shape of every tensor inside the graph."""
        for info in self._graph.value_info:
            yield _typed(info, info.name, TensorProto.FLOAT16) if info.name in self._half else info
        for name in self._half & self._ends:
            yield _typed(self._infos[name], f"{name}.half", TensorProto.FLOAT16)
        for twin, name in self._casts.items():
            if twin != name and name in self._infos:
                kind = TensorProto.FLOAT16 if twin.endswith(".half") else TensorProto.FLOAT
                yield _typed(self._infos[name], twin, kind)


def _narrow_cast(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16


def _with_axes(node: onnx.NodeProto, model: onnx.ModelProto, writer: _Writer) -> onnx.NodeProto:
    """The node with its axes as an input, where the model's opset reads them so."""
    if node.op_type not in ("ReduceMax", "ReduceMean") or model.opset_import[0].version < _OPSET_OF_AXES:
        return node
    axes = [list(attribute.ints) for attribute in node.attribute if attribute.name == "axes"]
    rest = [attribute for attribute in node.attribute if attribute.name != "axes"]
    for values in axes:
        name = f"{node.name}.axes"
        writer.constants[name] = numpy_helper.from_array(np.array(values, np.int64), name)
        node.input.append(name)
    del node.attribute[:]
    node.attribute.extend(rest)
    return node


def _typed(info: onnx.ValueInfoProto, name: str, kind: int) -> onnx.ValueInfoProto:
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(info)
    copy.name, copy.type.tensor_type.elem_type = name, kind
    return copy


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}.cast", to=kind)
