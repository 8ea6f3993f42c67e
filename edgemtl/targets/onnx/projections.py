"""Queries, keys and values of attention as one matrix product, and their heads as one transpose.

All three read the same tokens, so that one product of three times as many outputs computes the same numbers, and a
runtime with a fast product does not wait three times for its threads to begin. The heads of all three then lie one
after another, where OpenVINO cuts them apart without a copy.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgemtl.targets.onnx.replacing import replace_nodes

__all__ = ["join_projections"]

_PARTS = 3
_TO_HEADS, _TO_COLUMNS = [1, 0, 2], [1, 2, 0]
"""The order of dimensions in which heads come first, and that of keys, whose tokens are columns then."""


@dataclass(frozen=True)
class _Projection:
    """One of the three: its product, the reshape into heads, and their transpose."""

    gemm: NodeProto
    split: NodeProto
    turn: NodeProto

    @property
    def nodes(self) -> tuple[NodeProto, ...]:
        """Its operators."""
        return self.gemm, self.split, self.turn

    @property
    def constants(self) -> list[str]:
        """Its weights (outputs, inputs) and its bias."""
        return list(self.gemm.input[1:])


def join_projections(model: onnx.ModelProto) -> None:
    """Replace, in place, the projections of every layer of attention of a model in float, as `emit_graph` writes it."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    instead: dict[str, list[NodeProto]] = {}
    for projections in _layers(graph):
        instead |= {node.name: [] for each in projections for node in each.nodes}
        instead[projections[-1].gemm.name] = list(_joined(graph, constants, projections))
    replace_nodes(graph, instead)


def _layers(graph: onnx.GraphProto) -> Iterator[list[_Projection]]:
    """Queries, keys and values of each layer, in the order in which they are computed."""
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, int] = defaultdict(int)
    for node in graph.node:
        for name in node.input:
            readers[name] += 1
    by_tokens: dict[str, list[_Projection]] = defaultdict(list)
    for turn in graph.node:
        if turn.op_type == "Transpose" and turn.doc_string == "Attention" and _order(turn) in (_TO_HEADS, _TO_COLUMNS):
            split = makers[turn.input[0]]
            gemm = makers.get(split.input[0]) if split.op_type == "Reshape" else None
            if gemm is not None and gemm.op_type == "Gemm" and readers[gemm.output[0]] == 1:
                by_tokens[gemm.input[0]].append(_Projection(gemm, split, turn))
    yield from (each for each in by_tokens.values() if len(each) == _PARTS)


def _order(turn: NodeProto) -> list[int]:
    return next(list(attribute.ints) for attribute in turn.attribute if attribute.name == "perm")


def _joined(
    graph: onnx.GraphProto, constants: dict[str, TensorProto], projections: Sequence[_Projection]
) -> Iterator[NodeProto]:
    """The operators that stand for the three; their outputs have the names that they had."""
    first, mark = projections[0], projections[0].turn.doc_string
    name, turned = f"{first.gemm.name}.joined", f"{first.turn.name}.joined"
    heads, width = numpy_helper.to_array(constants[first.split.input[1]])[1:].tolist()
    stored = [_constant(graph, constants, [each.constants[number] for each in projections]) for number in (0, 1)]
    sizes = {f"{turned}.shape": [-1, _PARTS * heads, width], f"{turned}.sizes": [heads] * _PARTS}
    graph.initializer.extend(numpy_helper.from_array(np.array(size, np.int64), key) for key, size in sizes.items())
    shape, parts = sizes
    gemm = helper.make_node("Gemm", [first.gemm.input[0], *stored], [name], name=name, transB=1)
    split, outputs = f"{turned}.split", [each.turn.output[0] for each in projections]
    apart = [
        f"{output}.rows" if _order(each.turn) == _TO_COLUMNS else output
        for each, output in zip(projections, outputs, strict=True)
    ]
    yield gemm
    yield helper.make_node("Reshape", [name, shape], [split], name=split, doc_string=mark)
    yield helper.make_node("Transpose", [split], [turned], name=turned, doc_string=mark, perm=_TO_HEADS)
    yield helper.make_node("Split", [turned, parts], apart, name=f"{turned}.parts", doc_string=mark, axis=0)
    for rows, output in zip(apart, outputs, strict=True):
        if rows != output:
            yield helper.make_node("Transpose", [rows], [output], name=output, doc_string=mark, perm=[0, 2, 1])


def _constant(graph: onnx.GraphProto, constants: dict[str, TensorProto], parts: Sequence[str]) -> str:
    """Constants one after another as one, made once: blocks of several tasks may have the same weights."""
    name = f"{parts[0]}.joined"
    if name not in constants:
        whole = np.concatenate([numpy_helper.to_array(constants[part]) for part in parts])
        constants[name] = numpy_helper.from_array(whole, name)
        graph.initializer.append(constants[name])
    return name
