"""Tensors that operators read and write, those of graphs inside them included."""

from __future__ import annotations

from collections.abc import Collection

import onnx

__all__ = ["Access", "bodies", "moving_tensors", "read_by", "reads_and_writes"]

Access = tuple[Collection[str], Collection[str]]
"""Names that an operator reads, and names that it writes."""


def bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """Graphs inside a node: the branches of `If`, the bodies of `Loop` and `Scan`."""
    return [attribute.g for attribute in node.attribute if attribute.HasField("g")]


def read_by(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads, inside its bodies too, which may come from around it; "" is no name."""
    inner = [
        set().union(*(read_by(each) for each in body.node), (output.name for output in body.output))
        for body in bodies(node)
    ]
    return set(node.input).union(*inner) - {""}


def reads_and_writes(graph: onnx.GraphProto) -> list[Access]:
    """Names that each operator of a graph reads and writes, in the graph's order."""
    return [(read_by(node), node.output) for node in graph.node]


def moving_tensors(graph: onnx.GraphProto) -> set[str]:
    """Tensors that depend on an input, or on chance: not weights, nor what is computed from them alone."""
    fixed = {tensor.name for tensor in graph.initializer}
    moving = {info.name for info in graph.input} - fixed
    for node in graph.node:
        if read_by(node) & moving or not (node.input or node.op_type == "Constant"):
            moving.update(filter(None, node.output))
    return moving
