"""Operators of a graph replaced by others that compute the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import NodeProto

__all__ = ["replace_nodes"]


def replace_nodes(graph: onnx.GraphProto, instead: Mapping[str, Sequence[NodeProto]]) -> None:
    """Put, in place, the operators that `instead` has under an operator's name where that one is; none takes it away.

    What turned weights back for operators that are gone goes, and so do constants that nobody reads and the shapes of
    what new operators give.
    """
    nodes = [new for node in graph.node for new in instead.get(node.name, [node])]
    read = {name for node in nodes for name in node.input} | {output.name for output in graph.output}
    nodes = [node for node in nodes if node.op_type != "DequantizeLinear" or node.output[0] in read]
    read = {name for node in nodes for name in node.input}
    initializers = [tensor for tensor in graph.initializer if tensor.name in read]
    given = {name for node in graph.node if node.name not in instead for name in node.output}
    infos = [info for info in graph.value_info if info.name in given]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(initializers)
    graph.value_info.extend(infos)
