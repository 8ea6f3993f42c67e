"""Tasks that need a tensor or an operator, and operators in groups that the same tasks need."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import onnx

from edgemtl.graphs.reading import Access, read_by, reads_and_writes

__all__ = ["Group", "Tasks", "TensorsOfTasks", "group_by_tasks", "grouped", "tasks_of_operators", "tasks_of_tensors"]

Tasks = frozenset[str]
TensorsOfTasks = Mapping[str, AbstractSet[str]]
"""The tensors that each task gives."""


@dataclass(frozen=True)
class Group:
    """Operators, in the graph's order, that exactly these tasks need; `outputs` are what others read or tasks give."""

    tasks: Tasks
    nodes: tuple[onnx.NodeProto, ...]
    outputs: tuple[str, ...]


def tasks_of_tensors(accesses: Sequence[Access], outputs: TensorsOfTasks) -> dict[str, Tasks]:
    """The tasks that need each tensor; `accesses` are those of operators in order of execution."""
    needed: dict[str, Tasks] = {}
    for task, names in outputs.items():
        for name in names:
            needed[name] = needed.get(name, frozenset()) | {task}
    for reads, writes in reversed(accesses):
        tasks = _needing(writes, needed)
        for name in reads:
            if name:
                needed[name] = needed.get(name, frozenset()) | tasks
    return needed


def tasks_of_operators(accesses: Sequence[Access], outputs: TensorsOfTasks) -> list[Tasks]:
    """The tasks that need each operator, in the order of `accesses`; no task where nothing needs it."""
    needed = tasks_of_tensors(accesses, outputs)
    return [_needing(writes, needed) for _, writes in accesses]


def _needing(names: Collection[str], needed: Mapping[str, Tasks]) -> Tasks:
    return frozenset[str]().union(*(needed.get(name, ()) for name in names))


def group_by_tasks(graph: onnx.GraphProto, outputs: TensorsOfTasks) -> list[Group]:
    """Groups of operators, those that most tasks need first; what no task needs is in none."""
    members: dict[Tasks, list[onnx.NodeProto]] = {}
    for node, tasks in zip(graph.node, tasks_of_operators(reads_and_writes(graph), outputs), strict=True):
        if tasks:
            members.setdefault(tasks, []).append(node)
    order = sorted(members.items(), key=lambda item: (-len(item[0]), sorted(item[0])))
    return grouped(order, outputs)


def grouped(parts: Sequence[tuple[Tasks, Sequence[onnx.NodeProto]]], outputs: TensorsOfTasks) -> list[Group]:
    """Groups of the operators given, with the tensors that leave each."""
    readers: defaultdict[str, set[int]] = defaultdict(set)
    for number, (_, nodes) in enumerate(parts):
        for node in nodes:
            for name in read_by(node):
                readers[name].add(number)
    finals = frozenset[str]().union(*outputs.values())
    return [
        Group(
            tasks, tuple(nodes), tuple(name for name in _written(nodes) if name in finals or readers[name] - {number})
        )
        for number, (tasks, nodes) in enumerate(parts)
    ]


def _written(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    return [name for node in nodes for name in node.output if name]
