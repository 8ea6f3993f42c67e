"""Where tasks run the same operators with the same weights, each on tensors of its own.

Behind the first mixture of experts every task runs the transformer's blocks by itself; what differs are the routers. So
one task's operators, with routers' weights as inputs, serve every task: one engine, and weights once in memory, where a
runtime would otherwise lay out the weights anew for every task.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

from onnx import NodeProto, TensorProto

from edgemtl.graphs import Group

__all__ = ["CommonPath", "common_path"]

_SELECTS, _MIXTURE = "Router", "Combine"
"""The operator whose weights may differ between tasks, and the last one of a mixture, as `doc_string`s name them."""


@dataclass(frozen=True)
class CommonPath:
    """The operators that every task's group begins with, in the tensor names of the first task.

    `inputs` they read from other groups, `outputs` others read from them. `weights` maps each task to what replaces the
    first task's constants, by name; `heads` maps what a task's further operators read to where it comes from, one of
    the outputs or a tensor of another group.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: Mapping[str, Mapping[str, str]]
    heads: Mapping[str, Mapping[str, str]]


def common_path(groups: Sequence[Group], constants: Mapping[str, TensorProto]) -> CommonPath | None:
    """The path that all groups of one task have in common; None where there are fewer than two, or no mixture in it."""
    alone = {next(iter(group.tasks)): group.nodes for group in groups if len(group.tasks) == 1}
    if len(alone) < 2:
        return None
    first = next(iter(alone.values()))
    pairs = {task: _Pair(constants) for task in alone}
    length = min(pairs[task].follow(first, nodes) for task, nodes in alone.items())
    path = first[:length]
    if not any(node.doc_string == _MIXTURE for node in path):
        return None
    made = {name for node in path for name in node.output}
    heads = {}
    for task, nodes in alone.items():
        sources = {pairs[task].names[name]: name for name in made}
        heads[task] = {name: sources.get(name, name) for name in _read(nodes[length:], constants)}
    taken = {source for sources in heads.values() for source in sources.values()}
    read = {name for node in path for name in node.input}
    differ = sorted({name for pair in pairs.values() for name in pair.weights if name in read})
    return CommonPath(
        tuple(_read(path, constants)),
        tuple(name for node in path for name in node.output if name in taken),
        {task: {name: pair.weights.get(name, name) for name in differ} for task, pair in pairs.items()},
        heads,
    )


def _read(nodes: Sequence[NodeProto], constants: Container[str]) -> list[str]:
    """Tensors that operators read and do not produce, each once."""
    made = {name for node in nodes for name in node.output}
    read = dict.fromkeys(name for node in nodes for name in node.input if name)
    return [name for name in read if name not in made and name not in constants]


@dataclass
class _Pair:
    """How far one task's operators are another's, and what each tensor of the one is called in the other."""

    constants: Mapping[str, TensorProto]
    names: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)

    def follow(self, first: Sequence[NodeProto], other: Sequence[NodeProto]) -> int:
        """The number of operators from the beginning on that are alike."""
        for count, (one, two) in enumerate(zip(first, other, strict=False)):
            if not self._same_node(one, two):
                return count
            self.names.update(zip(one.output, two.output, strict=True))
        return min(len(first), len(other))

    def _same_node(self, one: NodeProto, two: NodeProto) -> bool:
        if one.op_type != two.op_type or len(one.input) != len(two.input) or list(one.attribute) != list(two.attribute):
            return False
        selects = one.doc_string == _SELECTS
        return all(self._same(a, b, selects) for a, b in zip(one.input, two.input, strict=True))

    def _same(self, one: str, two: str, selects: bool) -> bool:
        if one not in self.constants:
            return self.names.get(one, one) == two
        a, b = self.constants[one], self.constants.get(two)
        if one == two or (b is not None and _content(a) == _content(b)):
            return True
        if selects and b is not None and a.dims == b.dims and a.data_type == b.data_type:
            self.weights[one] = two
            return True
        return False


def _content(tensor: TensorProto) -> tuple[int, tuple[int, ...], bytes]:
    return tensor.data_type, tuple(tensor.dims), tensor.raw_data
