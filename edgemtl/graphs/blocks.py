"""Blocks of a graph, from its wiring alone.

Operators that several tasks need make blocks of the trunk, those that one needs make its own. A block ends where a
single tensor carries all that comes after in its part: behind a residual sum, between two plain layers. A long stretch
without such a place (a U-Net, whose skips hold every tensor) is cut where the resolution changes, and evenly where that
does not suffice.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from math import ceil

import onnx

from edgemtl.graphs.macs import has_rule
from edgemtl.graphs.reading import moving_tensors, read_by
from edgemtl.graphs.tasks import Group, TensorsOfTasks, group_by_tasks, grouped

__all__ = ["cut_blocks"]

MOST_LAYERS = 8
"""Layers that a block without an inner seam may have before it is cut all the same."""
_RESIZING = ("ConvTranspose", "DepthToSpace", "Resize", "SpaceToDepth", "Upsample")
_STRIDED = ("AveragePool", "Conv", "FusedConv", "LpPool", "MaxPool", "NhwcMaxPool", "QLinearAveragePool", "QLinearConv")

Nodes = list[onnx.NodeProto]


def cut_blocks(graph: onnx.GraphProto, outputs: TensorsOfTasks) -> list[Group]:
    """Blocks in order, those that most tasks need first; every operator that a task needs is in one of them.

    What multiplies nothing belongs to the layer before it, or to the first behind it where there is none before.
    """
    moving = moving_tensors(graph)
    parts = [(group.tasks, nodes) for group in group_by_tasks(graph, outputs) for nodes in _cut(group.nodes, moving)]
    return grouped(parts, outputs)


def _cut(nodes: Sequence[onnx.NodeProto], moving: AbstractSet[str]) -> list[Nodes]:
    """Operators of a part, cut where one tensor carries all that comes after."""
    last = {name: position for position, node in enumerate(nodes) for name in read_by(node) & moving}
    live: set[str] = set()
    pieces: list[Nodes] = [[]]
    for position, node in enumerate(nodes):
        pieces[-1].append(node)
        live |= (read_by(node) | set(node.output)) & moving
        live = {name for name in live if last.get(name, -1) > position}
        if len(live) <= 1:
            pieces.append([])
    return _joined([part for piece in pieces if piece for part in _cut_long(piece)])


def _cut_long(piece: Nodes) -> list[Nodes]:
    if _layers(piece) <= MOST_LAYERS:
        return [piece]
    parts: list[Nodes] = [[]]
    for node in piece:
        if parts[-1] and _changes_resolution(node):
            parts.append([])
        parts[-1].append(node)
    return [even for part in parts for even in _cut_evenly(part)]


def _cut_evenly(part: Nodes) -> list[Nodes]:
    """Operators in as few stretches as have at most `MOST_LAYERS` layers each, which begin with a layer."""
    layers = _layers(part)
    each = ceil(layers / ceil(layers / MOST_LAYERS)) if layers else 1
    stretches: list[Nodes] = [[]]
    for node in part:
        if has_rule(node) and _layers(stretches[-1]) == each:
            stretches.append([])
        stretches[-1].append(node)
    return stretches


def _layers(nodes: Nodes) -> int:
    return sum(map(has_rule, nodes))


def _changes_resolution(node: onnx.NodeProto) -> bool:
    if node.op_type in _RESIZING:
        return True
    strides = next((each.ints for each in node.attribute if each.name == "strides"), ())
    return node.op_type in _STRIDED and max(strides, default=1) > 1


def _joined(pieces: Sequence[Nodes]) -> list[Nodes]:
    """Pieces that multiply, each with those behind it that do not; what comes before the first goes with it."""
    joined: list[Nodes] = []
    seen = False
    for piece in pieces:
        multiplies = _layers(piece) > 0
        if joined and not (multiplies and seen):
            joined[-1] += piece
        else:
            joined.append(list(piece))
        seen = seen or multiplies
    return joined
