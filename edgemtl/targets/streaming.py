"""The reference executor of `edgemtl.runtime`: a graph in JSON and the weights in one flat file, read piece by piece.

For a board whose memory is smaller than the model. Weights lie in the order in which they are used, each operator's
together, in a mixture each expert's; what several tasks share lies there once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgemtl.devices import Device
from edgemtl.errors import UnsupportedError
from edgemtl.files.disk import write_atomic, write_json
from edgemtl.models.graph import Graph, Node, outside
from edgemtl.models.quantization import QuantScheme, Ranges
from edgemtl.runtime import ALIGNMENT, MIXTURE, OPERATORS, Expert, Operator, StreamGraph, Weight
from edgemtl.targets.common import check_build, write_spec
from edgemtl.targets.onnx.dispatch import DispatchPolicy
from edgemtl.traits import TargetTraits

if TYPE_CHECKING:
    from edgemtl.models import TaskNet

__all__ = ["StreamingTarget", "stream_graph"]

_Key = tuple[tuple[tuple[int, tuple[int, ...]], ...], ...]
"""Which tensors operators that run together have: address and shape of each."""

_FILES = {"graph": "graph.json", "weights": "weights.bin"}
_TRAITS = TargetTraits(
    name="streaming",
    title="Reference executor (NumPy), weights streamed",
    block_precisions=("float",),
    engine_precisions=("fp32",),
    channel_multiple=1,
    runtime="streaming",
    extra="",
)


@dataclass(frozen=True)
class StreamingTarget:
    """Writes `graph.json` and `weights.bin`."""

    device: Device

    @property
    def traits(self) -> TargetTraits:
        """The same wherever NumPy runs."""
        return _TRAITS.on(self.device)

    @property
    def scheme(self) -> QuantScheme:
        """No block is INT8."""
        return QuantScheme()

    @property
    def dispatch(self) -> DispatchPolicy:
        """An expert's queue is as long as its tokens are many."""
        return DispatchPolicy("segments")

    def build(self, net: TaskNet, precision: Mapping[str, str], ranges: Ranges | None, folder: Path) -> list[Path]:
        """Write the engine; see `edgemtl.targets.ExportTarget`."""
        graph, _ = check_build(net, precision, ranges, self.traits)
        written, weights = stream_graph(graph)
        write_atomic(folder / _FILES["weights"], weights)
        write_json(
            folder / _FILES["graph"],
            {"schema": written.schema_, **written.model_dump(mode="json", by_alias=True, exclude_defaults=True)},
        )
        return write_spec(folder, self, graph, _FILES, precision)


def stream_graph(graph: Graph) -> tuple[StreamGraph, bytes]:
    """The executor's input for a traced net: its graph and the content of its weights file.

    Raises `UnsupportedError` naming the node whose operator the executor lacks.
    """
    layout = _Layout()
    experts = {node.name: _experts_of(node, graph) for node in graph.nodes if node.op == "Combine"}
    inside = {node.name for each in experts.values() for nodes in each for node in nodes}
    operators = []
    for node in graph.nodes:
        if node.op == "Combine":
            operators.append(_mixture(node, experts[node.name], layout))
        elif node.name not in inside:
            operators += _operators([node], layout)
    return StreamGraph(weight_bytes=layout.size, operators=tuple(operators)), layout.content()


class _Layout:
    """Lays weights out one after another, those of an operator or an expert together; shared ones lie there once."""

    def __init__(self) -> None:
        self.size = 0
        self._chunks: list[memoryview | bytes] = []
        self._laid: dict[_Key, list[dict[str, Weight]]] = {}

    def lay_out(self, nodes: Sequence[Node]) -> list[dict[str, Weight]]:
        """Where the constants of operators that run together lie, for each."""
        key = tuple(tuple((each.data_ptr(), tuple(each.shape)) for each in node.constants.values()) for node in nodes)
        if key not in self._laid:
            self._laid[key] = [self._append(node) for node in nodes]
        return self._laid[key]

    def _append(self, node: Node) -> dict[str, Weight]:
        placed = {}
        for name, tensor in node.constants.items():
            placed[name] = Weight(offset=self.size, shape=tuple(tensor.shape))
            padding = -placed[name].size_bytes % ALIGNMENT
            self._chunks += [np.ascontiguousarray(tensor.numpy(), "<f4").data, bytes(padding)]
            self.size += placed[name].size_bytes + padding
        return placed

    def content(self) -> bytes:
        """The file."""
        return b"".join(self._chunks)


def _operators(nodes: Iterable[Node], layout: _Layout) -> list[Operator]:
    """The executor's records of operators that run on one piece of weights."""
    nodes = list(nodes)
    for node in nodes:
        if node.op not in OPERATORS:
            raise UnsupportedError(
                f"target streaming: operator {node.op} at {node.name} has no counterpart in NumPy; these have one: "
                f"{', '.join(sorted(OPERATORS))}"
            )
    return [
        Operator(
            name=node.name,
            op=node.op,
            block=_block(node),
            inputs=node.inputs,
            output=node.output,
            attributes={name: node.attributes[name] for name in OPERATORS[node.op].attributes},
            weights=weights,
        )
        for node, weights in zip(nodes, layout.lay_out(nodes), strict=True)
    ]


def _mixture(combined: Node, experts: Sequence[Sequence[Node]], layout: _Layout) -> Operator:
    """One operator for taking tokens, all experts and their sum."""
    gates, *given = combined.inputs
    tokens = experts[0][0].inputs[0]
    return Operator(
        name=combined.name,
        op=MIXTURE,
        block=_block(combined),
        inputs=(tokens, gates),
        output=combined.output,
        experts=tuple(
            Expert(input=taken.output, output=output, operators=tuple(_operators(nodes, layout)))
            for (taken, *nodes), output in zip(experts, given, strict=True)
        ),
    )


def _experts_of(combined: Node, graph: Graph) -> list[list[Node]]:
    """Each expert's operators in order, from the one that takes its tokens to the one that gives its result."""
    writers = graph.writers()
    order = {node.name: index for index, node in enumerate(graph.nodes)}
    experts = []
    for given in combined.inputs[1:]:
        node_of: dict[str, Node] = {}
        waiting = [given]
        while waiting:
            node = writers[waiting.pop()]
            if node.name not in node_of:
                node_of[node.name] = node
                waiting += () if node.op == "Dispatch" else node.inputs
        experts.append(sorted(node_of.values(), key=lambda node: order[node.name]))
    return experts


def _block(node: Node) -> str:
    return "" if node.block == outside else node.block
