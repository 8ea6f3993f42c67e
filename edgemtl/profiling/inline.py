"""Functions of a model's own, which exporters write for modules, as plain operators."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import onnx.inliner
from onnx import helper

__all__ = ["inlined"]


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with functions of the model's own as plain nodes, whose constants are there once."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    # The inliner leaves functions of another version of ONNX alone, most of which differ in nothing that they use.
    versions = {opset.domain: opset.version for opset in model.opset_import}
    for function in copy.functions:
        for opset in function.opset_import:
            if opset.domain in versions and _means_the_same(function.node, opset, versions[opset.domain]):
                opset.version = versions[opset.domain]
    try:
        copy = onnx.inliner.inline_local_functions(copy)
    except Exception:  # the C++ inliner raises kinds of its own: calls stay, and are named as not counted
        return copy
    _share_constants(copy.graph, model.functions)
    return copy


def _means_the_same(nodes: Iterable[onnx.NodeProto], opset: onnx.OperatorSetIdProto, version: int) -> bool:
    """Whether operators take and give the same in another version of their domain."""
    try:
        return all(
            _signature(node, opset.version) == _signature(node, version)
            for node in nodes
            if node.domain == opset.domain
        )
    except onnx.defs.SchemaError:
        return False


def _signature(node: onnx.NodeProto, version: int) -> tuple[list[str], list[str], list[str]]:
    schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    return [each.name for each in schema.inputs], [each.name for each in schema.outputs], sorted(schema.attributes)


def _share_constants(graph: onnx.GraphProto, functions: Iterable[onnx.FunctionProto]) -> None:
    """A function's constant, copied wherever it was called, is stored once: the copies become names of the first."""
    inside = [node for function in functions for node in function.node if node.op_type == "Constant"]
    contents = {attribute.SerializeToString() for node in inside for attribute in node.attribute}
    first: dict[bytes, str] = {}
    for node in graph.node:
        content = node.attribute[0].SerializeToString() if node.op_type == "Constant" and node.attribute else b""
        if content in first:
            node.CopyFrom(helper.make_node("Identity", [first[content]], list(node.output)))
        elif content in contents:
            first[content] = node.output[0]
