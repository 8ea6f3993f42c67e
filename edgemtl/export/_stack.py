"""Experts that all have the same number of places, as one batch of matrices where there was a product an expert.

Behind fixed buckets the experts of a layer differ in nothing but their weights, so that a runtime with a fast batched
product runs two operators a layer and cuts nothing into pieces. Weights are stored an expert as before, and joined by
operators that a runtime folds when it compiles: tasks that reach some of the same experts share what is stored.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

__all__ = ["stack_experts"]

_GELU = Counter(["Div", "Erf", "Add", "Mul", "Mul"])


@dataclass(frozen=True)
class _Expert:
    """One expert's operators: two linear layers in float, and the activation between them."""

    first: NodeProto
    activation: Sequence[NodeProto]
    second: NodeProto


def stack_experts(model: onnx.ModelProto) -> None:
    """Join, in place, the experts of every layer whose tokens come from buckets and whose weights are float."""
    graph = _Graph(model.graph)
    instead: dict[str, list[NodeProto]] = {}
    for split in (node for node in model.graph.node if node.op_type == "Split" and graph.is_even(node)):
        found = [expert for name in split.output if (expert := graph.expert(name)) is not None]
        ends = {node.name: node for expert in found for node in graph.readers[expert.second.output[0]]}
        if len(found) < len(split.output) or len({graph.sizes(expert) for expert in found}) > 1 or len(ends) != 1:
            continue
        (join,) = ends.values()
        gone = [node for expert in found for node in (expert.first, *expert.activation, expert.second)]
        instead |= {node.name: [] for node in (split, *gone)}
        instead[join.name] = graph.stacked(split, found, join)
    nodes = [new for node in model.graph.node for new in instead.get(node.name, [node])]
    del model.graph.node[:], model.graph.value_info[:]  # shapes of pieces that are gone
    model.graph.node.extend(nodes)


class _Graph:
    """Who reads each tensor, and which tensors are constants."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph, self._place = graph, {node.name: place for place, node in enumerate(graph.node)}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self.readers[name].append(node)

    def is_even(self, split: NodeProto) -> bool:
        """Whether these are buckets: pieces of one size, which no data decides."""
        return split.doc_string == "Taken" and len(set(self._numbers(split.input[1]))) == 1

    def _numbers(self, name: str) -> list[int]:
        return numpy_helper.to_array(self._constants[name]).tolist() if name in self._constants else []

    def expert(self, name: str) -> _Expert | None:
        """The expert that reads the tensor `name`; None where it is anything but two float layers around a GELU."""
        (first, *others) = self.readers[name]
        if others or not self._is_linear(first):
            return None
        inner: dict[str, NodeProto] = {}
        ends: dict[str, NodeProto] = {}
        waiting = [first.output[0]]
        while waiting:
            for node in self.readers[waiting.pop()]:
                if node.op_type == "Gemm":
                    ends[node.name] = node
                elif node.name not in inner and len(inner) < _GELU.total():
                    inner[node.name] = node
                    waiting.append(node.output[0])
        if len(ends) != 1 or Counter(node.op_type for node in inner.values()) != _GELU:
            return None
        (second,) = ends.values()
        activation = sorted(inner.values(), key=lambda node: self._place[node.name])
        return _Expert(first, activation, second) if self._is_linear(second) else None

    def _is_linear(self, node: NodeProto) -> bool:
        return node.op_type == "Gemm" and len(node.input) == 3 and all(n in self._constants for n in node.input[1:])

    def sizes(self, expert: _Expert) -> tuple[tuple[int, ...], ...]:
        """Shapes of its weights."""
        return tuple(tuple(self._constants[node.input[1]].dims) for node in (expert.first, expert.second))

    def stacked(self, split: NodeProto, experts: Sequence[_Expert], join: NodeProto) -> list[NodeProto]:
        """The operators that stand for all experts; the activation is the first one's, over three dimensions."""
        made: list[NodeProto] = []
        prefix, begun, count = f"{join.output[0]}.stacked", experts[0], len(experts)
        (hidden, width), (outputs, _) = self.sizes(begun)

        def step(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
            made.append(helper.make_node(op, inputs, [output], name=output, doc_string=split.doc_string, **attributes))
            return output

        def shaped(source: str, output: str, shape: Sequence[int]) -> str:
            size = numpy_helper.from_array(np.array(shape, np.int64), f"{output}.shape")
            self._graph.initializer.append(size)
            return step("Reshape", [source, size.name], output)

        def linear(source: str, layers: Sequence[NodeProto], rows: int, output: str) -> str:
            weights = step("Concat", [node.input[1] for node in layers], f"{output}.weights", axis=0)
            weights = shaped(weights, f"{weights}.apart", [count, rows, -1])
            turned = step("Transpose", [weights], f"{weights}.turned", perm=[0, 2, 1])
            biases = step("Concat", [node.input[2] for node in layers], f"{output}.biases", axis=0)
            biases = shaped(biases, f"{biases}.apart", [count, 1, rows])
            return step("Add", [step("MatMul", [source, turned], f"{output}.product"), biases], output)

        tokens = shaped(split.input[0], f"{prefix}.tokens", [count, self._numbers(split.input[1])[0], width])
        linear(tokens, [expert.first for expert in experts], hidden, begun.first.output[0])
        made += begun.activation
        result = linear(begun.second.input[0], [expert.second for expert in experts], outputs, f"{prefix}.second")
        shaped(result, join.output[0], [-1, outputs])
        return made
