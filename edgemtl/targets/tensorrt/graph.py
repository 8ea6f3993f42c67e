"""A flat view of an ONNX model and of the branches inside it: what rules ask of nodes and tensors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgemtl.errors import UserError, reason_of

__all__ = ["View", "attribute", "view_of"]

Shape = tuple[int | None, ...]


@dataclass
class View:
    """Nodes of a model and of all its branches; names of tensors are unique across them, as ONNX wants.

    `shapes` has None for a dimension without a size; `within` is the node whose branch makes or stores a tensor, and
    has only those inside one. `inputs` are the model's.
    """

    opset: int
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    within: dict[str, str] = field(default_factory=dict)
    writers: dict[str, NodeProto] = field(default_factory=dict)
    readers: dict[str, list[NodeProto]] = field(default_factory=lambda: defaultdict(list))
    inputs: tuple[str, ...] = ()

    def array(self, name: str) -> NDArray[np.generic]:
        """A constant's value."""
        return numpy_helper.to_array(self.constants[name])


def view_of(model: onnx.ModelProto) -> View:
    """The view of a model, with the types and shapes that ONNX's inference gives; `UserError` where it gives none."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise UserError(f"the model breaks ONNX's own rules ({reason_of(error)}): export it again") from error
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    constants = {tensor.name for tensor in model.graph.initializer}
    view = View(opset, inputs=tuple(info.name for info in model.graph.input if info.name not in constants))
    _add(view, inferred.graph, "")
    return view


def _add(view: View, graph: onnx.GraphProto, within: str) -> None:
    for info in (*graph.input, *graph.value_info, *graph.output):
        kind = info.type.tensor_type
        view.kinds[info.name] = kind.elem_type
        if kind.HasField("shape"):
            view.shapes[info.name] = tuple(
                size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim
            )
    for tensor in graph.initializer:
        view.constants[tensor.name] = tensor
        view.kinds[tensor.name], view.shapes[tensor.name] = tensor.data_type, tuple(tensor.dims)
        view.within[tensor.name] = within
    for node in graph.node:
        view.nodes.append(node)
        for name in node.output:
            view.writers[name], view.within[name] = node, within
        for name in node.input:
            view.readers[name].append(node)
        for branch in _branches(node):
            _add(view, branch, node.name or node.output[0])


def _branches(node: NodeProto) -> Iterator[onnx.GraphProto]:
    for each in node.attribute:
        if each.type == onnx.AttributeProto.GRAPH:
            yield each.g


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute, `default` where it has none."""
    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)
