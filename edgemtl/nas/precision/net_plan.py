"""A net of one's own as a family of nets: plans of its narrower forms, which a search of a space counts and draws from.

Its blocks are those of the graph that PyTorch exports of the whole net. A weight shrinks with the channels of the
groups that it reads and gives; what else a block multiplies or stores is counted as in the whole net.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from edgemtl.blocks import BlockRecord
from edgemtl.nas.prune import ModuleCosts, ParameterCost
from edgemtl.own import FLOAT, INT4, INT8
from edgemtl.spaces import ENGINE, BlockPlan, Choice, ConvPlan, Family, Plan, Slot, Values
from edgemtl.tasks import Task
from edgemtl.traits import FOUR_BIT_GROUP

__all__ = ["OWN_NET", "NetSpec", "WeightedBlock", "channels_in", "weighted_blocks"]

_MAP_AXES, _ROW_AXES = 4, 2


@dataclass(frozen=True)
class WeightedBlock:
    """A block of the whole net as its graph is counted, and the weights of its layers, with the groups they follow.

    Layers of the weights that `biased` names, in order, add a bias.
    """

    record: BlockRecord
    weights: tuple[ParameterCost, ...]
    biased: tuple[str, ...]

    def plan(self, gone: Mapping[str, int]) -> BlockPlan:
        """The block where groups have lost `gone` channels."""
        about, convs = self.record, self._convs(gone)
        return BlockPlan(
            about.name, about.kind, about.task, convs, about.inputs, others=self._others, products=self._products
        )

    def _convs(self, gone: Mapping[str, int]) -> tuple[ConvPlan, ...]:
        return tuple(_conv(each, each.left(gone), each.name in self.biased) for each in self.weights)

    @cached_property
    def _products(self) -> int:
        """Multiply-accumulates of the whole block that are not of its layers."""
        return max(0, self.record.flops // 2 - sum(conv.macs for conv in self._convs({})))

    @cached_property
    def _others(self) -> int:
        """Parameters of the whole block beside weights and biases."""
        stored, convs = sum(table.params for table in self.record.weights), self._convs({})
        return max(0, stored - sum(conv.weights for conv in convs)) - sum(conv.biases for conv in convs)


def weighted_blocks(
    records: Sequence[BlockRecord], costs: ModuleCosts, biased: frozenset[str]
) -> tuple[WeightedBlock, ...]:
    """The blocks of a whole net's graph with the weights of its module that stand in them.

    `biased` are those whose layers add a bias in the graph; so do those whose layers have one in the module.
    A weight stands where the graph has a constant of its name or of another parameter of its layer. The exporter gives
    others new names: they are in the block of the layer before.
    """
    block_of = {table.name: number for number, record in enumerate(records) for table in record.weights}
    layers = {_layer(each.name): block_of[each.name] for each in costs.parameters if each.name in block_of}
    weights: list[list[ParameterCost]] = [[] for _ in records]
    number = 0
    for each in costs.parameters:
        number = layers.get(_layer(each.name), number)
        if each.macs:
            weights[number].append(each)
    names = {each.name for each in costs.parameters}
    biased |= {each.name for each in costs.parameters if f"{_layer(each.name)}.bias" in names}
    in_order = tuple(sorted(biased))  # a space's fingerprint is the same in every process
    return tuple(WeightedBlock(record, tuple(own), in_order) for record, own in zip(records, weights, strict=True))


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def _conv(weight: ParameterCost, shape: Sequence[int], has_bias: bool) -> ConvPlan:
    """A layer by the shape of its weights, output channels first; a transposed one counts as if they were."""
    outputs, square = shape[0], len(shape) == _MAP_AXES and shape[2] == shape[3]
    kernel = shape[2] if square else 1
    groups = outputs if len(shape) == _MAP_AXES and shape[1] == 1 else 1
    inputs = groups * math.prod(shape) // (outputs * kernel**2)
    four = len(shape) == _ROW_AXES and inputs >= FOUR_BIT_GROUP
    return ConvPlan(weight.name, inputs, outputs, kernel, 1, groups, round(weight.macs), 1, has_bias, four)


class NetSpec(BaseModel):
    """The family's specification: counts of channels by group, fewest first, and all blocks.

    `sizes` are the channels of every group in the whole net; `eight` and `four` blocks that INT8 and INT4 change;
    `engines` precisions of the target's engines.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True)

    widths: dict[str, tuple[int, ...]]
    sizes: dict[str, int]
    eight: tuple[str, ...]
    four: tuple[str, ...]
    engines: tuple[str, ...]
    blocks: tuple[WeightedBlock, ...]


def channels_in(spec: NetSpec, values: Values) -> dict[str, int]:
    """How many channels each group keeps under some options."""
    return {name: int(values.get(f"{name}.channels", size)) for name, size in spec.sizes.items()}


def _choices(spec: NetSpec, tasks: Sequence[Task]) -> tuple[Choice, ...]:
    return tuple(choice for choice in _all_choices(spec) if len(choice.options) > 1)


def _all_choices(spec: NetSpec) -> Iterator[Choice]:
    for name, widths in spec.widths.items():
        yield Choice(f"{name}.channels", widths)
    for block in spec.blocks:
        name = block.record.name
        kinds = [kind for kind, changed in ((INT8, spec.eight), (INT4, spec.four)) if name in changed]
        yield Choice(f"{name}.precision", (FLOAT, *kinds), block.record.task, precision_of=name)
    yield Choice(ENGINE, spec.engines, precision_of="engine")


def _slots(spec: NetSpec, tasks: Sequence[Task]) -> dict[str, Slot]:
    return {block.record.name: Slot(block.record.task) for block in spec.blocks}


def _plan(spec: NetSpec, tasks: Sequence[Task], values: Values, size: tuple[int, int]) -> Plan:
    kept = channels_in(spec, values)
    gone = {name: size - kept[name] for name, size in spec.sizes.items()}
    return Plan(size, tuple(block.plan(gone) for block in spec.blocks))


OWN_NET = Family("own", NetSpec, _choices, _slots, _plan, 1)
"""The narrower forms of one net, each block in a precision of its own: channels are sorted by importance."""
