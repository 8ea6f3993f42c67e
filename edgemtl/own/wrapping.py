"""Pads that wrap around, as circular convolutions have them: as slices of a map that are joined to it.

ONNX writes them as a mode of `Pad` that ONNX Runtime alone computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgemtl.own.folding import set_nodes, shape_of

__all__ = ["join_wrapped_pads"]


def join_wrapped_pads(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put slices and joins in place of each `Pad` that wraps, in place; shapes of all tensors must be known.

    One that removes values, or adds more than the map has, stays as it is.
    """
    graph = model.graph
    if not any(map(_wraps, graph.node)):
        return model
    infos = {info.name: info for info in (*graph.input, *graph.value_info, *graph.output)}
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in list(graph.node):
        info = infos.get(node.input[0]) if _wraps(node) else None
        shape = () if info is None else shape_of(info) or ()
        ends = _ends(node, constants, shape) if shape else None
        if info is None or ends is None:
            nodes.append(node)
        else:
            nodes += _joined(graph, node, info.type.tensor_type.elem_type, shape, ends)
    set_nodes(graph, nodes)
    return model


def _wraps(node: onnx.NodeProto) -> bool:
    return node.op_type == "Pad" and any(each.name == "mode" and each.s == b"wrap" for each in node.attribute)


def _ends(
    node: onnx.NodeProto, constants: Mapping[str, NDArray[np.generic]], shape: Sequence[int]
) -> list[tuple[int, int]] | None:
    """Values that are added before and behind along each axis; None where slices cannot give them."""
    axes_name = node.input[3] if len(node.input) > 3 else ""
    if node.input[1] not in constants or (axes_name and axes_name not in constants):
        return None
    axes = [int(axis) % len(shape) for axis in constants[axes_name].ravel()] if axes_name else list(range(len(shape)))
    pads = constants[node.input[1]].reshape(2, -1)
    ends = [(0, 0)] * len(shape)
    for axis, before, behind in zip(axes, *pads, strict=True):
        ends[axis] = int(before), int(behind)
    fits = all(0 <= end <= side for pair, side in zip(ends, shape, strict=True) for end in pair)
    return ends if fits else None


def _joined(
    graph: onnx.GraphProto, node: onnx.NodeProto, kind: int, shape: Sequence[int], ends: Sequence[tuple[int, int]]
) -> Iterator[onnx.NodeProto]:
    """Operators that do what a `Pad` does, axis by axis; their constants and shapes are added to the graph."""
    sizes, source = list(shape), node.input[0]
    wrapped = [axis for axis, pair in enumerate(ends) if any(pair)]
    if not wrapped:
        yield helper.make_node("Identity", [source], list(node.output), name=node.name)
    for axis in wrapped:
        before, behind = ends[axis]
        whole = node.output[0] if axis == wrapped[-1] else f"{node.output[0]}.axis{axis}"
        side, parts = sizes[axis], [source]
        for word, first, count in (("before", side - before, before), ("behind", 0, behind)):
            if not count:
                continue
            part = f"{node.output[0]}.axis{axis}.{word}"
            bounds = {f"{part}.from": first, f"{part}.to": first + count, f"{part}.along": axis}
            graph.initializer.extend(numpy_helper.from_array(np.array([value]), key) for key, value in bounds.items())
            sizes[axis] = count
            graph.value_info.append(helper.make_tensor_value_info(part, kind, sizes))
            yield helper.make_node("Slice", [source, *bounds], [part], name=part)
            parts.insert(0 if word == "before" else len(parts), part)
        sizes[axis] = side + before + behind
        if whole != node.output[0]:
            graph.value_info.append(helper.make_tensor_value_info(whole, kind, sizes))
        yield helper.make_node("Concat", parts, [whole], name=whole, axis=axis)
        source = whole
