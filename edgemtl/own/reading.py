"""An ONNX graph, operator by operator, as calls of torch.fx: what operators of a table read it with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch import Tensor, fx, nn

from edgemtl.errors import UnsupportedError
from edgemtl.own.folding import shape_of
from edgemtl.own.refusals import label

__all__ = ["Call", "Operator", "Reader"]

Array = NDArray[np.generic]
Value = fx.Node | float | int | bool


class Reader:
    """A graph in the making: `root` holds layers and constants, `dimensions` where lone parameters have channels.

    `version` is that of ONNX's operator set.
    """

    def __init__(self, model: onnx.ModelProto, input_name: str) -> None:
        graph = model.graph
        infos = (*graph.input, *graph.value_info, *graph.output)
        self.shapes = {info.name: shape for info in infos if (shape := shape_of(info)) is not None}
        self.constants = {tensor.name: _in_fp32(numpy_helper.to_array(tensor)) for tensor in graph.initializer}
        self.shapes |= {name: array.shape for name, array in self.constants.items()}
        self.version = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 1)
        self.readers = Counter(name for node in graph.node for name in node.input)
        self.readers.update(info.name for info in graph.output)
        self.calls, self.root = fx.Graph(), nn.Module()
        self.dimensions: dict[str, int | None] = {}
        self.values: dict[str, fx.Node] = {input_name: self.calls.placeholder("image")}
        self._parameters: dict[tuple[str, bool], nn.Parameter] = {}
        self._names: set[str] = set()

    def read(self, node: onnx.NodeProto, operators: Mapping[str, Operator], name: str) -> None:
        """Append what an operator does; `UnsupportedError` for one that is not in the table, or not in that form."""
        operator = operators.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        made = None if operator is None else operator(Call(self, node))
        if made is None:
            raise UnsupportedError(
                f"{name} cannot be trained: {label(node)} has no counterpart in PyTorch here, or not in that form: "
                "give the module that the file was exported from, as package.module:function"
            )
        results = made if isinstance(made, list) else [made]
        self.values |= {output: value for output, value in zip(node.output, results, strict=False) if output}

    def parameter(self, name: str, transposed: bool = False) -> nn.Parameter:
        """A constant as a parameter, the same one for all who read it."""
        key = name, transposed
        if key not in self._parameters:
            array = self.constants[name].astype(np.float32)
            self._parameters[key] = nn.Parameter(torch.from_numpy((array.T if transposed else array).copy()))
        return self._parameters[key]

    def layer(self, node: onnx.NodeProto, layer: nn.Module, source: fx.Node) -> fx.Node:
        """A call of a layer, which is called after the operator."""
        name = self.name(node.name or node.output[0])
        self.root.add_module(name, layer)
        return self.calls.call_module(name, (source,))

    def held(self, name: str, value: Tensor, dimension: int | None = None) -> fx.Node:
        """A constant on its own: a parameter with channels along a dimension, or what is not trained."""
        name = self.name(name)
        if dimension is None:
            self.root.register_buffer(name, value)
        else:
            self.root.register_parameter(name, value if isinstance(value, nn.Parameter) else nn.Parameter(value))
            self.dimensions[name] = dimension
        return self.calls.get_attr(name)

    def name(self, text: str) -> str:
        """A name that an attribute may have, and that nothing has yet."""
        plain = "".join(letter if letter.isalnum() else "_" for letter in text).strip("_") or "layer"
        plain = f"layer_{plain}" if plain[0].isdigit() else plain
        while plain in self._names or hasattr(self.root, plain):
            plain += "_"
        self._names.add(plain)
        return plain


def _in_fp32(array: Array) -> Array:
    """Numbers of another precision are trained in FP32."""
    return array.astype(np.float32) if array.dtype.kind == "f" else array


class Call:
    """One operator: what it reads, and how its results are made."""

    def __init__(self, reader: Reader, node: onnx.NodeProto) -> None:
        self.reader, self.node, self.op = reader, node, node.op_type
        self.attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}

    def has(self, position: int) -> bool:
        """Whether this input is given."""
        return position < len(self.node.input) and bool(self.node.input[position])

    def shape(self, position: int = 0) -> tuple[int, ...]:
        """The shape of an input, batch of one included."""
        return self.reader.shapes[self.node.input[position]]

    def made(self, position: int = 0) -> tuple[int, ...]:
        """The shape of a result."""
        return self.reader.shapes[self.node.output[position]]

    def text(self, name: str, otherwise: str) -> str:
        """An attribute that is text."""
        value = self.attributes.get(name)
        return otherwise if value is None else bytes(value).decode()

    def constant(self, position: int) -> Array | None:
        """The values of an input that is constant; None where there are none."""
        return self.reader.constants.get(self.node.input[position]) if self.has(position) else None

    def numbers(self, name: str, position: int) -> list[int] | None:
        """Whole numbers of an attribute, or of the constant input that later operator sets have in its place."""
        if name in self.attributes:
            return [int(value) for value in np.ravel(self.attributes[name])]
        values = self.constant(position)
        return None if values is None else [int(value) for value in np.ravel(values)]

    def parameter(self, position: int, transposed: bool = False) -> nn.Parameter | None:
        """A constant input as a parameter of a layer."""
        is_constant = self.constant(position) is not None
        return self.reader.parameter(self.node.input[position], transposed) if is_constant else None

    def source(self, position: int = 0) -> fx.Node:
        """An input as a tensor of the graph, constants too."""
        name = self.node.input[position]
        if name not in self.reader.values:
            value = torch.from_numpy(self.reader.constants[name].copy())
            self.reader.values[name] = self.reader.held(name, value)
        return self.reader.values[name]

    def operand(self, position: int, other: Sequence[int]) -> Value:
        """An input that is calculated with: a tensor, one number, or a parameter that is trained.

        It has channels where the tensor of shape `other` has them: along its second axis of four or more, or the last.
        """
        name, values = self.node.input[position], self.constant(position)
        if values is None or name in self.reader.values:
            return self.source(position)
        if values.size == 1 and values.ndim <= len(other):
            number: float | int | bool = values.item()
            return number
        axis = 1 if len(other) >= 4 else len(other) - 1
        own = axis - (len(other) - values.ndim)
        if values.dtype.kind == "f" and 0 <= own < values.ndim and values.shape[own] == other[axis] > 1:
            self.reader.values[name] = self.reader.held(name, self.reader.parameter(name), own)
        return self.source(position)

    def apply(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> fx.Node:
        """A call of a function."""
        return self.reader.calls.call_function(function, arguments, keywords)

    def layer(self, layer: nn.Module, source: fx.Node | None = None) -> fx.Node:
        """A call of a layer, on the first input where nothing else is given."""
        return self.reader.layer(self.node, layer, self.source() if source is None else source)


Operator = Callable[[Call], "fx.Node | list[fx.Node] | None"]
"""Appends what an operator does; None where it does not know this form of it."""
