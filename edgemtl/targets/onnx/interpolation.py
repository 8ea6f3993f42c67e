"""Bilinear enlarging of what eight-bit layers leave, as two products: along the rows, then along the columns.

Interpolation is linear and separable: out = A x B, where each row of A and each column of B has two weights. ONNX
Runtime computes its own operator value by value; dense products of matrices that are nearly empty take a half to a
seventh of that time, as long as a map has few rows (`_MOST_PRODUCTS`). After layers in float it has a blocked kernel,
which is as fast: those stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

__all__ = ["interpolate_by_products"]

_MOST_PRODUCTS = 64
"""Products for each value that is written, up to which they are faster."""
_WAYS = (b"half_pixel", b"pytorch_half_pixel", b"align_corners", b"asymmetric")
_MAP_AXES = 4


@dataclass(frozen=True)
class _Axis:
    """One axis of a map, from `inner` values to `outer`, whose positions are mapped in this way."""

    inner: int
    outer: int
    scale: float
    way: str

    @property
    def name(self) -> str:
        """The name of its weights."""
        return f"const.linear.{self.way}.{self.inner}.{self.outer}.{self.scale:g}"

    def weights(self) -> NDArray[np.float32]:
        """The share that each value that is written has of each that is read, (outer, inner)."""
        positions = np.arange(self.outer)
        shift = 0.5 if self.way.endswith("half_pixel") else 0.0
        step = (self.inner - 1) / max(1, self.outer - 1) if self.way == "align_corners" else 1 / self.scale
        if self.way == "pytorch_half_pixel" and self.outer == 1:
            shift = 0.0
        at = np.clip((positions + shift) * step - shift, 0, self.inner - 1)
        low = np.floor(at).astype(int)
        weights = np.zeros((self.outer, self.inner), np.float32)
        weights[positions, low] = 1 - (at - low)
        weights[positions, np.minimum(low + 1, self.inner - 1)] += (at - low).astype(np.float32)
        return weights


def interpolate_by_products(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without a bilinear `Resize` of any map (N, C, H, W) that was in eight bits, where products are faster.

    Shapes of all tensors must be known. The original is left as it is.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    infos = {info.name: info for info in (*graph.value_info, *graph.output)}
    shapes = {name: [size.dim_value for size in info.type.tensor_type.shape.dim] for name, info in infos.items()}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    eight = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    nodes: list[NodeProto] = []
    for node in graph.node:
        axes = _axes(node, shapes, constants) if node.op_type == "Resize" and node.input[0] in eight else None
        if axes is None:
            nodes.append(node)
        else:
            nodes += _products(graph, node, axes, shapes[node.input[0]])
    read = {name for node in nodes for name in node.input}
    initializers = {tensor.name: tensor for tensor in graph.initializer if tensor.name in read}  # axes come repeatedly
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(initializers.values())
    return result


def _axes(
    node: NodeProto, shapes: Mapping[str, Sequence[int]], constants: Mapping[str, NDArray[np.generic]]
) -> tuple[_Axis, _Axis] | None:
    """Rows and columns of a map that is enlarged; None where another rule holds, or products would take longer."""
    settings = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    way = settings.get("coordinate_transformation_mode", b"half_pixel")
    before, after = shapes.get(node.input[0], []), shapes.get(node.output[0], [])
    blends = settings.get("mode") == b"linear" and way in _WAYS and not settings.get("antialias")
    maps = len(before) == len(after) == _MAP_AXES and all((*before, *after)) and before[:2] == after[:2]
    if not blends or not maps or "axes" in settings or "keep_aspect_ratio_policy" in settings:
        return None
    scales = [new / old for old, new in zip(before, after, strict=True)]
    if given := node.input[2] if len(node.input) > 2 else "":
        if given not in constants or constants[given].size not in (0, _MAP_AXES):
            return None
        scales = constants[given].tolist() or scales
    rows, columns = (_Axis(before[axis], after[axis], scales[axis], way.decode()) for axis in (2, 3))
    products = rows.inner + rows.inner * columns.inner / rows.outer
    return (rows, columns) if products <= _MOST_PRODUCTS else None


def _products(
    graph: onnx.GraphProto, node: NodeProto, axes: tuple[_Axis, _Axis], shape: Sequence[int]
) -> Iterator[NodeProto]:
    """The operators that stand for one `Resize`; their constants and the shape between them are added to the graph."""
    rows, columns = axes
    across, right, left = f"{node.output[0]}.across", f"{columns.name}.across", f"{rows.name}.down"
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(columns.weights().T), right))
    graph.initializer.append(numpy_helper.from_array(rows.weights(), left))
    kind = onnx.TensorProto.FLOAT
    graph.value_info.append(helper.make_tensor_value_info(across, kind, [*shape[:3], columns.outer]))
    yield helper.make_node("MatMul", [node.input[0], right], [across], name=f"{node.name}.across")
    yield helper.make_node("MatMul", [left, across], [node.output[0]], name=node.name)
