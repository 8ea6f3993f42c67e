"""Blocks of an ONNX graph, from the scopes that exporters write into names, or from the wiring.

Where names say nothing, blocks end where a single tensor carries all that comes after: behind a residual sum, between
two plain layers. A long stretch without such a place (a U-Net, whose skips hold every tensor) is cut where the
resolution changes. Operators that several tasks need make blocks of the trunk, those that one needs make its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgemtl.files.onnx import read_onnx
from edgemtl.profiling.inline import inlined
from edgemtl.profiling.macs import has_rule
from edgemtl.profiling.names import short_name
from edgemtl.profiling.shapes import bodies, read_by

if TYPE_CHECKING:
    import onnx

__all__ = ["Blocks", "cut_to", "find_blocks", "named_model", "needed_by"]

Tasks = frozenset[str]
LONG = 8
"""Products that a block without an inner seam may have before it is cut where the resolution changes."""
_RESIZING = ("ConvTranspose", "DepthToSpace", "Resize", "SpaceToDepth", "Upsample")
_STRIDED = ("AveragePool", "Conv", "FusedConv", "LpPool", "MaxPool", "NhwcMaxPool", "QLinearAveragePool", "QLinearConv")


@dataclass(frozen=True)
class Blocks:
    """The block of each operator by its name and by its outputs', and the task of each block that only one needs."""

    by_operator: Mapping[str, str]
    owners: Mapping[str, str]

    def of(self, operator: str) -> str:
        """The block of an operator, or of the one that a runtime's fusion was named after; "" where there is none."""
        if operator in self.by_operator:
            return self.by_operator[operator]
        begins = [name for name in self.by_operator if operator.startswith(name) and not operator[len(name)].isalnum()]
        return self.by_operator[max(begins, key=len)] if begins else ""


def find_blocks(graph: onnx.GraphProto, heads: Mapping[str, str]) -> Blocks:
    """Blocks of a graph whose operators have names (`named_model`); `heads` are the tasks' output tensors."""
    tasks_of = needed_by(graph, heads)
    labels = _by_names(graph.node) or _by_wiring(graph, tasks_of, heads)
    users: dict[str, set[str]] = {}
    by_operator, by_output = dict[str, str](), dict[str, str]()
    for node, label, tasks in zip(graph.node, labels, tasks_of, strict=True):
        users.setdefault(label, set()).update(tasks)
        by_operator.update(dict.fromkeys(_names_in(node), label))
        by_output.update(dict.fromkeys(filter(None, node.output), label))
    one = {label: next(iter(tasks)) for label, tasks in users.items() if label and len(tasks) == 1 < len(heads)}
    return Blocks({**by_output, **by_operator}, one)


def named_model(path: Path) -> onnx.ModelProto:
    """A file's model with its functions as plain operators, each with a name of its own; outside data stay there."""
    model = read_onnx(path)
    model = inlined(model) if model.functions else model
    _name_nodes(model.graph)
    return model


def cut_to(model: onnx.ModelProto, outputs: Sequence[str]) -> onnx.ModelProto:
    """Leave of a model the part that `outputs` need, with the inputs that it reads, and return it.

    Tensors that `If` reads inside count too. Data outside of the file stay there.
    """
    graph, needed, nodes = model.graph, set(outputs), []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= read_by(node)
            nodes.append(node)
    results = {info.name: info for info in graph.output}
    for field, wanted in (
        (graph.node, nodes[::-1]),
        (graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed]),
        (graph.sparse_initializer, [each for each in graph.sparse_initializer if each.values.name in needed]),
        (graph.input, [info for info in graph.input if info.name in needed]),
        (graph.output, [results[name] for name in outputs]),
    ):
        copies = [type(item).FromString(item.SerializeToString()) for item in wanted]
        del field[:]
        field.extend(copies)
    return model


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Name operators that have no name, or that of another, after what they do and their place."""
    taken: set[str] = {""}
    for index, node in enumerate(graph.node):
        if node.name in taken:
            node.name = f"{node.op_type}#{index}"
        taken.add(node.name)
        for body in bodies(node):
            _name_nodes(body)


def needed_by(graph: onnx.GraphProto, heads: Mapping[str, str]) -> list[Tasks]:
    """The tasks whose output needs each operator, in the graph's order."""
    readers: dict[str, Tasks] = {}
    for task, name in heads.items():
        readers[name] = readers.get(name, frozenset()) | {task}
    needed: list[Tasks] = []
    for node in reversed(graph.node):
        tasks = frozenset[str]().union(*(readers.get(name, ()) for name in node.output if name))
        for name in read_by(node):
            readers[name] = readers.get(name, frozenset()) | tasks
        needed.append(tasks)
    return needed[::-1]


def _names_in(node: onnx.NodeProto) -> Iterator[str]:
    yield node.name
    for body in bodies(node):
        for inner in body.node:
            yield from _names_in(inner)


def _by_names(nodes: Sequence[onnx.NodeProto]) -> list[str] | None:
    """The outermost scope that tells operators apart; None where fewer than half of those that multiply have one."""
    scopes = [_scope(node.name) for node in nodes]
    while len({scope[0] for scope in scopes if scope}) == 1:  # a scope around everything, as of a whole model
        scopes = [scope[1:] for scope in scopes]
    dear = [index for index, node in enumerate(nodes) if has_rule(node)] or list(range(len(nodes)))
    if 2 * sum(bool(scopes[index]) for index in dear) < max(1, len(dear)):
        return None
    return [scope[0] if scope else "" for scope in scopes]


def _scope(name: str) -> list[str]:
    """The scopes in an exporter's name of a node (`/stage1/conv/Conv`, `blocks.s1_1.conv`), outermost first."""
    parts = [part for part in re.split(r"[/.]", name) if part]
    with suppress(ValueError):
        parts.remove("blocks")
    return parts[:-1]


def _by_wiring(graph: onnx.GraphProto, tasks_of: Sequence[Tasks], heads: Mapping[str, str]) -> list[str]:
    """A label for each operator; "" for what depends on no input."""
    labels = [""] * len(graph.node)
    moving = _moving(graph)
    groups: dict[Tasks, list[int]] = {}
    for index, tasks in enumerate(tasks_of):
        if tasks and any(name in moving for name in graph.node[index].output):
            groups.setdefault(tasks, []).append(index)
    for tasks, members in groups.items():
        pieces = _pieces(graph, members, moving)
        part = _part(tasks, heads)
        for number, piece in enumerate(pieces, 1):
            label = part if len(pieces) == 1 and part != "block" else f"{part} {number}"
            for index in piece:
                labels[index] = label
    return labels


def _part(tasks: Tasks, heads: Mapping[str, str]) -> str:
    if len(heads) == 1:
        return "block"
    if len(tasks) == len(heads):
        return "trunk"
    return short_name("+".join(task for task in heads if task in tasks))


def _moving(graph: onnx.GraphProto) -> set[str]:
    """Tensors that depend on an input: not weights, nor what is computed from them alone."""
    fixed = {tensor.name for tensor in graph.initializer}
    moving = {info.name for info in graph.input} - fixed
    for node in graph.node:
        if read_by(node) & moving or not (node.input or node.op_type == "Constant"):
            moving.update(filter(None, node.output))
    return moving


def _pieces(graph: onnx.GraphProto, members: Sequence[int], moving: set[str]) -> list[list[int]]:
    """Operators in order, cut where one tensor carries all that comes after; what multiplies nothing joins others."""
    last = {name: position for position, index in enumerate(members) for name in read_by(graph.node[index]) & moving}
    inside: set[str] = set()
    pieces: list[list[int]] = [[]]
    for position, index in enumerate(members):
        node = graph.node[index]
        pieces[-1].append(index)
        inside |= (read_by(node) & moving) | set(filter(None, node.output))
        inside = {name for name in inside if last.get(name, -1) > position}
        if len(inside) <= 1:
            pieces.append([])
    short = [part for piece in pieces if piece for part in _cut_long(graph, piece)]
    return _joined(graph, short)


def _cut_long(graph: onnx.GraphProto, piece: list[int]) -> list[list[int]]:
    if sum(has_rule(graph.node[index]) for index in piece) <= LONG:
        return [piece]
    parts: list[list[int]] = [[]]
    for index in piece:
        if parts[-1] and _changes_resolution(graph.node[index]):
            parts.append([])
        parts[-1].append(index)
    return parts


def _changes_resolution(node: onnx.NodeProto) -> bool:
    if node.op_type in _RESIZING:
        return True
    strides = next((each.ints for each in node.attribute if each.name == "strides"), ())
    return node.op_type in _STRIDED and max(strides, default=1) > 1


def _joined(graph: onnx.GraphProto, pieces: Sequence[list[int]]) -> list[list[int]]:
    """Pieces that multiply, each with those behind it that do not; what comes before the first goes with it."""
    joined: list[list[int]] = []
    seen = False
    for piece in pieces:
        multiplies = any(has_rule(graph.node[index]) for index in piece)
        if joined and not (multiplies and seen):
            joined[-1] += piece
        else:
            joined.append(list(piece))
        seen = seen or multiplies
    return joined
