"""`If` on a condition that no image changes: the branch that is taken, in its place."""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper

from edgemtl.graphs import renamed_node

__all__ = ["take_branches"]


def take_branches(model: onnx.ModelProto) -> bool:
    """Replace every `If` whose condition is an initializer, in place; whether there was one.

    Tensors of a branch are called after its `If`, so that two branches may use one name.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    taken = False
    for node in graph.node:
        if node.op_type == "If" and node.input[0] in constants:
            taken = True
            branch = _branch(node, bool(numpy_helper.to_array(constants[node.input[0]]).item()))
            nodes += _inlined(graph, branch, node)
        else:
            nodes.append(node)
    if taken:
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)
    return taken


def _branch(node: onnx.NodeProto, condition: bool) -> onnx.GraphProto:
    name = "then_branch" if condition else "else_branch"
    branch = onnx.GraphProto()
    branch.CopyFrom(next(attribute.g for attribute in node.attribute if attribute.name == name))
    return branch


def _inlined(graph: onnx.GraphProto, branch: onnx.GraphProto, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The operators of a branch, which give what its `If` gave; its constants go to the graph."""
    label = node.name or node.output[0]
    inner = [*(name for each in branch.node for name in each.output), *(tensor.name for tensor in branch.initializer)]
    names = {name: f"{label}.{name}" for name in inner if name}
    for tensor in branch.initializer:
        graph.initializer.append(tensor)
        graph.initializer[-1].name = names[tensor.name]
    nodes = [renamed_node(each, names) for each in branch.node]
    given = (names.get(info.name, info.name) for info in branch.output)
    return nodes + [helper.make_node("Identity", [name], [out]) for name, out in zip(given, node.output, strict=True)]
