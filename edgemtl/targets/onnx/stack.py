"""Experts of equal capacity as one batched matrix product, where there was one product per expert.

Behind fixed buckets the experts of a layer differ in nothing but their weights, so that a runtime with a fast batched
product runs two operators a layer and cuts nothing into pieces. Weights are stored joined where every task reaches the
same experts. Where windows of experts overlap each expert is stored, once for all tasks, and operators that a runtime
folds when it compiles join them.
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
    mixtures: list[tuple[NodeProto, list[_Expert], NodeProto]] = []
    for split in (node for node in model.graph.node if node.op_type == "Split" and graph.is_even(node)):
        experts = [expert for name in split.output if (expert := graph.expert(name)) is not None]
        ends = {node.name: node for expert in experts for node in graph.readers[expert.second.output[0]]}
        of_one_size = len({graph.sizes(expert) for expert in experts}) == 1
        if len(experts) == len(split.output) and of_one_size and len(ends) == 1:
            mixtures.append((split, experts, *ends.values()))
    windows = {tuple(expert.first.input[1] for expert in experts) for _, experts, _ in mixtures}
    reached = Counter(name for window in windows for name in window)
    instead: dict[str, list[NodeProto]] = {}
    for split, experts, join in mixtures:
        gone = [node for expert in experts for node in (expert.first, *expert.activation, expert.second)]
        instead |= {node.name: [] for node in (split, *gone)}
        stored_joined = all(reached[expert.first.input[1]] == 1 for expert in experts)
        instead[join.name] = graph.stacked(split, experts, join, stored_joined)
    nodes = [new for node in model.graph.node for new in instead.get(node.name, [node])]
    del model.graph.node[:], model.graph.value_info[:]  # shapes of pieces that are gone
    model.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    initializers = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(initializers)


class _Graph:
    """Who reads each tensor, and which tensors are constants."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph, self._index = graph, {node.name: index for index, node in enumerate(graph.node)}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self.readers[name].append(node)

    def is_even(self, split: NodeProto) -> bool:
        """Whether these are buckets: pieces of one size, which no data decides."""
        return split.doc_string == "Dispatch" and len(set(self._numbers(split.input[1]))) == 1

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
        activation = sorted(inner.values(), key=lambda node: self._index[node.name])
        return _Expert(first, activation, second) if self._is_linear(second) else None

    def _is_linear(self, node: NodeProto) -> bool:
        return node.op_type == "Gemm" and len(node.input) == 3 and all(n in self._constants for n in node.input[1:])

    def sizes(self, expert: _Expert) -> tuple[tuple[int, ...], ...]:
        """Shapes of its weights."""
        return tuple(tuple(self._constants[node.input[1]].dims) for node in (expert.first, expert.second))

    def stacked(
        self, split: NodeProto, experts: Sequence[_Expert], join: NodeProto, stored_joined: bool
    ) -> list[NodeProto]:
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
            parts = [[node.input[position] for node in layers] for position in (1, 2)]
            if stored_joined:
                turned, biases = self._joined(parts[0], [count, rows, -1]), self._joined(parts[1], [count, rows, 1])
            else:
                weights = step("Concat", parts[0], f"{output}.weights", axis=0)
                weights = shaped(weights, f"{weights}.apart", [count, rows, -1])
                turned = step("Transpose", [weights], f"{weights}.turned", perm=[0, 2, 1])
                biases = step("Concat", parts[1], f"{output}.biases", axis=0)
                biases = shaped(biases, f"{biases}.apart", [count, 1, rows])
            return step("Add", [step("MatMul", [source, turned], f"{output}.product"), biases], output)

        tokens = shaped(split.input[0], f"{prefix}.tokens", [count, self._numbers(split.input[1])[0], width])
        linear(tokens, [expert.first for expert in experts], hidden, begun.first.output[0])
        made += begun.activation
        result = linear(begun.second.input[0], [expert.second for expert in experts], outputs, f"{prefix}.second")
        shaped(result, join.output[0], [-1, outputs])
        return made

    def _joined(self, parts: Sequence[str], shape: Sequence[int]) -> str:
        """One constant of several, of this shape but with its last two dimensions turned over; made once."""
        name = f"{parts[0]}.joined"
        if name not in self._constants:
            whole = np.concatenate([numpy_helper.to_array(self._constants[part]) for part in parts]).reshape(shape)
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(whole.swapaxes(1, 2)), name)
            self._graph.initializer.append(self._constants[name])
        return name
