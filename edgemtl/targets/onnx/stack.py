"""Experts of equal capacity as one batched matrix product, where there was one product per expert.

Behind fixed buckets the experts of a layer differ in nothing but their weights and, in INT8, their scales, so that a
runtime with a fast batched product runs two operators a layer and cuts nothing into pieces. Weights are stored joined
where every task reaches the same experts. Where windows of experts overlap each expert is stored, once for all tasks,
and operators that a runtime folds when it compiles join them; it may fold INT8 weights to float ones (OpenVINO does).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from onnx import NodeProto, numpy_helper

from edgemtl.targets.onnx.replacing import replace_nodes
from edgemtl.targets.onnx.stacked_layer import Layer, StackWriter

__all__ = ["stack_experts"]

_GELU = Counter(["Div", "Erf", "Add", "Mul", "Mul"])


@dataclass(frozen=True)
class _Expert:
    """One expert's operators: two linear layers, and the activation between them."""

    first: Layer
    activation: Sequence[NodeProto]
    second: Layer

    @property
    def nodes(self) -> list[NodeProto]:
        """Everything that a batched product stands for."""
        return [*self.first.nodes, *self.activation, *self.second.nodes]


def stack_experts(model: onnx.ModelProto) -> None:
    """Join, in place, the experts of every layer whose tokens come from buckets, all in float or all in INT8."""
    graph = _Graph(model.graph)
    mixtures: list[tuple[NodeProto, list[_Expert], NodeProto]] = []
    for split in (node for node in model.graph.node if node.op_type == "Split" and graph.is_even(node)):
        experts = [expert for name in split.output if (expert := graph.expert(name)) is not None]
        ends = {node.name: node for expert in experts for node in graph.readers[expert.second.output]}
        alike = len({graph.form(expert) for expert in experts}) == 1
        if len(experts) == len(split.output) and alike and len(ends) == 1:
            mixtures.append((split, experts, *ends.values()))
    windows = {tuple(expert.first.weight for expert in experts) for _, experts, _ in mixtures}
    reached = Counter(name for window in windows for name in window)
    instead: dict[str, list[NodeProto]] = {}
    for split, experts, join in mixtures:
        instead |= {node.name: [] for node in (split, *(node for expert in experts for node in expert.nodes))}
        stored_joined = all(reached[expert.first.weight] == 1 for expert in experts)
        instead[join.name] = _stacked(graph, split, experts, join, stored_joined)
    replace_nodes(model.graph, instead)


class _Graph:
    """Who reads and who makes each tensor, and which tensors are constants."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph, self._index = graph, {node.name: index for index, node in enumerate(graph.node)}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self.readers[name].append(node)

    def is_even(self, split: NodeProto) -> bool:
        """Whether these are buckets: pieces of one size, which no data decides."""
        return split.doc_string == "Dispatch" and len(set(self.numbers(split.input[1]))) == 1

    def numbers(self, name: str) -> list[int]:
        """The values of a constant; none of what is no constant."""
        return numpy_helper.to_array(self.constants[name]).tolist() if name in self.constants else []

    def expert(self, name: str) -> _Expert | None:
        """The expert that reads the tensor `name`; None where it is anything but two layers around a GELU."""
        if (first := self._layer(name)) is None:
            return None
        inner: dict[str, NodeProto] = {}
        ends: set[str] = set()
        waiting = [first.output]
        while waiting:
            tensor = waiting.pop()
            for node in self.readers[tensor]:
                if node.op_type in ("Gemm", "QuantizeLinear"):
                    ends.add(tensor)
                elif node.name not in inner and len(inner) < _GELU.total():
                    inner[node.name] = node
                    waiting.append(node.output[0])
        if len(ends) != 1 or Counter(node.op_type for node in inner.values()) != _GELU:
            return None
        activation = sorted(inner.values(), key=lambda node: self._index[node.name])
        return None if (second := self._layer(*ends)) is None else _Expert(first, activation, second)

    def _layer(self, name: str) -> Layer | None:
        """The linear layer that alone reads a tensor, rounded on the way or not; None where there is none."""
        nodes: list[NodeProto] = []
        for wanted in ("QuantizeLinear", "DequantizeLinear", "Gemm"):
            readers = self.readers[name]
            if len(readers) != 1:
                return None
            if readers[0].op_type == wanted:
                nodes += readers
                name = readers[0].output[0]
        if not nodes or nodes[-1].op_type != "Gemm" or len(nodes) == 2:
            return None
        *rounding, gemm = nodes
        back = self._makers.get(gemm.input[1])
        stored = list(back.input) if back is not None and back.op_type == "DequantizeLinear" else [gemm.input[1]]
        known = len(gemm.input) == 3 and (len(stored) == 3) == bool(rounding)
        return (
            Layer(gemm, tuple(rounding), tuple(stored))
            if known and self._are_constant(gemm.input[2:], stored)
            else None
        )

    def _are_constant(self, *names: Sequence[str]) -> bool:
        return all(name in self.constants for each in names for name in each)

    def form(self, expert: _Expert) -> tuple[object, ...]:
        """Sizes and types of its weights."""
        weights = [self.constants[layer.stored[0]] for layer in (expert.first, expert.second)]
        return tuple((*weight.dims, weight.data_type) for weight in weights)


def _stacked(
    graph: _Graph, split: NodeProto, experts: Sequence[_Expert], join: NodeProto, stored_joined: bool
) -> list[NodeProto]:
    """The operators that stand for all experts; the activation is the first one's, over three dimensions."""
    writer = StackWriter(graph.graph, graph.constants, split.doc_string, len(experts), stored_joined)
    prefix, begun = f"{join.output[0]}.stacked", experts[0]
    tokens = writer.shaped(split.input[0], f"{prefix}.tokens", [len(experts), graph.numbers(split.input[1])[0], -1])
    writer.linear(tokens, [expert.first for expert in experts], begun.first.output)
    writer.nodes += begun.activation
    result = writer.linear(begun.activation[-1].output[0], [expert.second for expert in experts], f"{prefix}.second")
    writer.shaped(result, join.output[0], [-1, graph.constants[begun.second.stored[0]].dims[0]])
    return writer.nodes
