"""Blocks of a net of one's own as manifests record them, counted on its graph."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from edgemtl.blocks import BlockRecord, WeightRecord
from edgemtl.own.structure import NetBlock, Structure
from edgemtl.profiling import Count, count_operators
from edgemtl.targets import TaskModel

__all__ = ["block_records"]

_KINDS = {"Conv": "convolution", "ConvTranspose": "upsampling", "Gemm": "linear", "MatMul": "products"}


def block_records(
    model: TaskModel, structure: Structure, precision: Mapping[str, str] = MappingProxyType({})
) -> tuple[BlockRecord, ...]:
    """One record a block of a net in float, in order, with its `precision`, float where that names none.

    A weight that several blocks read is one table, stored once.
    """
    counts = count_operators(model.model)
    constants = {tensor.name for tensor in model.model.graph.initializer}
    channels = {info.name: _channels(info) for info in (*model.model.graph.value_info, *model.model.graph.output)}
    records = (_record(block, structure, counts, constants, channels) for block in structure.blocks)
    return tuple(each.model_copy(update={"precision": precision.get(each.name, "float")}) for each in records)


def _record(
    block: NetBlock,
    structure: Structure,
    counts: Mapping[str, Count],
    constants: set[str],
    channels: Mapping[str, int],
) -> BlockRecord:
    layers = block.layers
    written = [name for node in block.nodes for name in node.output]
    weights = dict.fromkeys(name for node in block.nodes for name in node.input if name in constants)
    return BlockRecord(
        name=block.name,
        kind=_KINDS.get(layers[0].op_type, layers[0].op_type) if layers else "operators",
        task=structure.owner(block),
        tasks=block.tasks,
        inputs=structure.inputs(block),
        channels=channels.get(block.tensor, 0),
        words=(f"{len(layers)} layers",) if len(layers) > 1 else (),
        numbers={"layers": len(layers), "operators": len(block.nodes)},
        precision="float",
        flops=sum(counts[name].flops for name in written if name in counts),
        weights=tuple(
            WeightRecord(name=name, params=counts[name].params, bytes=counts[name].weight_bytes)
            for name in weights
            if name in counts and counts[name].weight_bytes
        ),
        stage=None if structure.owner(block) else block.name,
    )


def _channels(info: object) -> int:
    sides = info.type.tensor_type.shape.dim  # type: ignore[attr-defined]
    return int(sides[1].dim_value) if len(sides) > 1 else 1
