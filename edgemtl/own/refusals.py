"""Nets that are not taken, each for a reason that is one line: the operator, where it stands, and what to do."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from edgemtl.errors import UnsupportedError

__all__ = ["LISTS", "check_operators", "label"]

_KNOWN_DOMAINS = ("", "ai.onnx", "com.microsoft")
_CONTROL = ("If", "Loop", "Scan")
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
_SIZED_BY_VALUES = ("Compress", "NonMaxSuppression", "NonZero", "Unique")
LISTS = ("SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceMap", "SplitToSequence")
"""Operators that give a list of tensors."""
_NAME_SHOWN = 80
_FEW_BITS = {
    onnx.TensorProto.INT8: "eight",
    onnx.TensorProto.UINT8: "eight",
    onnx.TensorProto.INT4: "four",
    onnx.TensorProto.UINT4: "four",
    onnx.TensorProto.INT2: "two",
    onnx.TensorProto.UINT2: "two",
}


def label(node: onnx.NodeProto) -> str:
    """An operator as messages name it: its type, and its name or what it writes."""
    name = node.name or next(iter(node.output), "") or "(no name)"
    return f"{node.op_type} {name[:_NAME_SHOWN]}"


def check_operators(graph: onnx.GraphProto, name: str) -> None:
    """Raise `UnsupportedError` for the first operator of a net, called `name`, that no bundle can hold.

    Give the graph with its constants folded: control flow on constants is gone then.
    """
    bits = {each.name: _FEW_BITS[each.data_type] for each in graph.initializer if each.data_type in _FEW_BITS}
    for node in sorted(graph.node, key=lambda node: node.op_type in LISTS):  # a loop that fills a list is the reason
        reason = _reason(node, bits)
        if reason:
            raise UnsupportedError(f"{name} cannot be taken: {label(node)} {reason}")


def _reason(node: onnx.NodeProto, bits: Mapping[str, str]) -> str:
    """The reason against one operator; empty where there is none. `bits` are those of constants that have few."""
    op = node.op_type
    if node.domain not in _KNOWN_DOMAINS:
        return f"is a custom operator of {node.domain}: export the net with operators of ONNX alone"
    if op in _CONTROL or any(attribute.HasField("g") for attribute in node.attribute):
        return "is control flow on values: every image must run the same operators, write it without the condition"
    if op in LISTS:
        return (
            "gives a list of tensors, which no bundle holds: write it with operators on single ones, Split and Concat"
        )
    if op in _RANDOM or (op == "Dropout" and len(node.input) > 2 and node.input[2]):
        return "is random, so that outputs change from call to call: export the net in evaluation mode"
    if op in _SIZED_BY_VALUES:
        return (
            "gives tensors whose size depends on the image: end the net before it (onnx.utils.extract_model cuts a "
            "file), and do the rest outside"
        )
    if op == "QuantizeLinear" or "Integer" in op or op.startswith(("QLinear", "QGemm", "QAttention", "DynamicQuant")):
        return "rounds values already: the net is quantized, give it as it was before"
    if op == "DequantizeLinear" and node.input[0] in bits:
        return f"reads weights of {bits[node.input[0]]} bits: the net is quantized, give it as it was before"
    return ""
