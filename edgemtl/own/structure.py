"""Structure of a net from its graph alone: trunk, what tasks own or share, blocks, and sums of residual branches.

Counting, precision, pruning, modes and pictures read it here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx

from edgemtl.graphs import cut_blocks, has_rule
from edgemtl.own.folding import shape_of

__all__ = ["NetBlock", "ResidualSum", "Structure", "find_structure"]


@dataclass(frozen=True)
class NetBlock:
    """Operators in a row that the same `tasks` need, in order; what they write for others ends in `tensor`."""

    name: str
    tasks: tuple[str, ...]
    nodes: tuple[onnx.NodeProto, ...]
    tensor: str

    @property
    def layers(self) -> list[onnx.NodeProto]:
        """Those of its operators that multiply."""
        return [node for node in self.nodes if has_rule(node)]


@dataclass(frozen=True)
class ResidualSum:
    """A sum of tensors that both come from the image: their channels stay together. `skips` is the block's input."""

    node: onnx.NodeProto
    block: str
    tensors: tuple[str, str]
    skips: bool


@dataclass(frozen=True)
class Structure:
    """Blocks in order of execution, the trunk's first, and sums."""

    tasks: tuple[str, ...]
    blocks: tuple[NetBlock, ...]
    sums: tuple[ResidualSum, ...]

    def owner(self, block: NetBlock) -> str | None:
        """The task that alone runs a block; None for one that several run."""
        return block.tasks[0] if len(block.tasks) == 1 else None

    def inputs(self, block: NetBlock) -> tuple[str, ...]:
        """Names of the blocks that a block reads from; `image` where it reads the image itself."""
        writers = {name: other.name for other in self.blocks for node in other.nodes for name in node.output}
        read = dict.fromkeys(name for node in block.nodes for name in node.input)
        constants = self._constants
        sources = (writers.get(name, "image") for name in read if name and name not in constants)
        return tuple(dict.fromkeys(source for source in sources if source != block.name))

    _constants: frozenset[str] = frozenset()


def find_structure(model: onnx.ModelProto, outputs: Mapping[str, Mapping[str, str]]) -> Structure:
    """The structure of a graph whose constants are initializers; `outputs` are the tensors of each task.

    Blocks are those of `edgemtl.graphs.cut_blocks`; parts that only some tasks share are blocks of their own.
    """
    tasks = tuple(outputs)
    constants = frozenset(tensor.name for tensor in model.graph.initializer)
    blocks: list[NetBlock] = []
    numbers: Counter[tuple[str, ...]] = Counter()
    for cut in cut_blocks(model.graph, {task: set(own.values()) for task, own in outputs.items()}):
        needed_by = tuple(task for task in tasks if task in cut.tasks)
        numbers[needed_by] += 1
        label = "trunk" if len(needed_by) == len(tasks) > 1 else "-".join(needed_by)[:60]
        blocks.append(NetBlock(f"{_plain(label)}_{numbers[needed_by]}", needed_by, cut.nodes, cut.outputs[-1]))
    return Structure(tasks, tuple(blocks), tuple(_sums(model, blocks, constants)), constants)


def _plain(label: str) -> str:
    return label.replace(".", "_").replace(" ", "_")


def _sums(model: onnx.ModelProto, blocks: Iterable[NetBlock], constants: frozenset[str]) -> Iterable[ResidualSum]:
    shapes = {info.name: shape_of(info) for info in (*model.graph.value_info, *model.graph.output)}
    for block in blocks:
        before: set[str] = set()
        for node in block.nodes:
            if node.op_type in ("Add", "Sum") and len(node.input) == 2 and constants.isdisjoint(node.input):
                one, two = node.input
                if shapes.get(one) is not None and shapes.get(one) == shapes.get(two):
                    yield ResidualSum(node, block.name, (one, two), not {one, two} <= before)
            before.update(node.output)
