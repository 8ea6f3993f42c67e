"""Blocks of an ONNX graph by name: from the scopes that exporters write into names, or else from the wiring."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgemtl.files.onnx import read_onnx
from edgemtl.graphs import (
    Group,
    Tasks,
    bodies,
    cut_blocks,
    has_rule,
    moving_tensors,
    read_by,
    reads_and_writes,
    tasks_of_operators,
)
from edgemtl.profiling.inline import inlined
from edgemtl.profiling.names import short_name

if TYPE_CHECKING:
    import onnx

__all__ = ["Blocks", "cut_to", "find_blocks", "named_model"]


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
    tasks_of = tasks_of_operators(reads_and_writes(graph), _tensors_of(heads))
    labels = _by_names(graph.node) or _by_wiring(graph, heads)
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


def _by_wiring(graph: onnx.GraphProto, heads: Mapping[str, str]) -> list[str]:
    """A label for each operator; "" for what depends on no input."""
    labels: dict[str, str] = {}
    moving = moving_tensors(graph)
    blocks: dict[Tasks, list[Group]] = {}
    for block in cut_blocks(graph, _tensors_of(heads)):
        if any(moving.intersection(node.output) for node in block.nodes):
            blocks.setdefault(block.tasks, []).append(block)
    for tasks, pieces in blocks.items():
        part = _part(tasks, heads)
        for number, block in enumerate(pieces, 1):
            label = part if len(pieces) == 1 and part != "block" else f"{part} {number}"
            labels.update(dict.fromkeys((name for node in block.nodes for name in node.output), label))
    return [next((labels.get(name, "") for name in node.output if name in moving), "") for node in graph.node]


def _part(tasks: Tasks, heads: Mapping[str, str]) -> str:
    if len(heads) == 1:
        return "block"
    if len(tasks) == len(heads):
        return "trunk"
    return short_name("+".join(task for task in heads if task in tasks))


def _tensors_of(heads: Mapping[str, str]) -> dict[str, set[str]]:
    return {task: {name} for task, name in heads.items()}
