"""The INT8 layers of a net one by one: what each multiplies in float, and on which grids its weights and input are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from edgemtl.models.graph import Node, Program
from edgemtl.models.quantization.entering import Rounding, roundings
from edgemtl.models.quantization.plan import QuantScheme, Ranges, parameters_of, plan_quantization, weight_scales

__all__ = ["EightBitLayer", "eight_bit_layers"]


@dataclass(frozen=True)
class EightBitLayer:
    """An INT8 layer: its operator in float, its weights in steps of their `scales` (one for each output channel).

    `scales` have as many axes as the weight. What enters is rounded to steps of `input_scale` by `rounding`.
    """

    node: Node
    steps: Tensor
    scales: Tensor
    rounding: Rounding
    input_scale: float

    def nearest(self, limit: int) -> Tensor:
        """Its weights rounded to the nearest whole steps, of at most `limit`, as every exporter rounds them."""
        return self.steps.round().clamp_(-limit, limit)

    def rounded_input(self, value: Tensor) -> Tensor:
        """The layer's input `value` as it multiplies it: rounded, as real numbers."""
        return self.rounding(value) * self.input_scale


def eight_bit_layers(
    program: Program, precision: Mapping[str, str], ranges: Ranges, scheme: QuantScheme
) -> dict[str, list[EightBitLayer]]:
    """The INT8 layers of a net by the tensor that they read; their normalisations are folded."""
    graph = program.graph
    plan = plan_quantization(graph.nodes, precision, scheme, graph.output_tensors)
    layers: dict[str, list[EightBitLayer]] = {}
    for node in (each for each in graph.nodes if each.name in plan.weights):
        name = node.inputs[0]
        entering = parameters_of(ranges[plan.source.get(name, name)], scheme)
        weight, bias = node.constants["weight"], node.constants.get("bias")
        given = None if bias is None else bias.numpy()
        shape = (-1, *[1] * (weight.ndim - 1))
        scales = torch.from_numpy(weight_scales(weight.numpy(), scheme, given, entering)).view(shape)
        rounding = roundings(graph, plan, {name: entering}, scheme, ())[name]
        layers.setdefault(name, []).append(EightBitLayer(node, weight / scales, scales, rounding, entering.scale))
    return layers
