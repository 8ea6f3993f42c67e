"""Operators and graphs whose tensors have other names."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

__all__ = ["rename_tensors", "renamed_node"]


def renamed_node(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    """A copy that reads and writes tensors by other names, in graphs inside it too."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [names.get(name, name) for name in node.input]
    copy.output[:] = [names.get(name, name) for name in node.output]
    for attribute in copy.attribute:
        if attribute.HasField("g"):
            body = attribute.g
            own = {tensor.name for tensor in body.initializer} | {info.name for info in body.input}
            own |= {name for inner in body.node for name in inner.output}
            rename_tensors(body, {name: new for name, new in names.items() if name not in own})
    return copy


def rename_tensors(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give tensors of a graph other names, in place."""
    copies = [renamed_node(node, names) for node in graph.node]
    del graph.node[:]
    graph.node.extend(copies)
    for info in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        info.name = names.get(info.name, info.name)
