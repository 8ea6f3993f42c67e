"""Bias correction: the mean error that rounding brings into a layer goes into its bias (Nagel et al. 2019).

No label is needed. Each layer's error is its own: what rounded weights and a rounded input change in the mean of its
output, for the input that the net has in float. Errors of layers before it have been taken out there already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, fx, nn

from edgemtl.models.graph import Node, Program, operator_of, run_graph, trace_program
from edgemtl.models.nets.net import MultiTaskNet
from edgemtl.models.quantization.layers import EightBitLayer, eight_bit_layers
from edgemtl.models.quantization.plan import QuantScheme, Ranges

__all__ = ["correct_biases"]


def correct_biases(
    net: MultiTaskNet,
    precision: Mapping[str, str],
    ranges: Ranges,
    scheme: QuantScheme,
    images: Iterable[Tensor],
    reference: MultiTaskNet | None = None,
) -> MultiTaskNet:
    """A copy of a recalibrated net whose INT8 layers have, channel by channel, the mean output that they have in float.

    The means are those over `images`, batches (N, 3, H, W), normalised. What float is, the `reference` says where the
    net's own weights are rounded already. A layer without a bias, and without a normalisation after it, stays as it is;
    one that several tasks run gets the mean of its corrections.
    """
    corrected = net.copy()
    program = trace_program(corrected)
    floating = program.graph if reference is None else trace_program(reference).graph
    layers = _layers(eight_bit_layers(program, precision, ranges, scheme), floating.nodes, scheme.weight_limit)
    for batch in images:
        run_graph(floating, batch, lambda name, value: _observe(layers.get(name, ()), value))
    calls = {name: call for call, name in program.operators.items()}
    changes: dict[nn.Parameter, list[Tensor]] = {}
    for layer in (each for same_input in layers.values() for each in same_input):
        bias = _bias_of(corrected, program, calls[layer.node.name])
        if bias is not None and layer.errors:
            changes.setdefault(bias, []).append(torch.stack(layer.errors).mean(0))
    with torch.no_grad():
        for bias, each in changes.items():
            bias.add_(torch.stack(each).mean(0))
    return corrected


@dataclass
class _Layer:
    """An INT8 layer: in float, with rounded weights, how its input is rounded, and its mean `errors` in each batch."""

    node: Node
    rounded: Node
    eight_bit: EightBitLayer
    errors: list[Tensor] = field(default_factory=list)


def _layers(
    eight_bit: Mapping[str, Iterable[EightBitLayer]], floating: Iterable[Node], limit: int
) -> dict[str, list[_Layer]]:
    """The INT8 layers by the tensor that they read, each with its operator in float."""
    nodes = {node.name: node for node in floating}
    layers: dict[str, list[_Layer]] = {}
    for name, each in ((name, each) for name, same_input in eight_bit.items() for each in same_input):
        constants = {**each.node.constants, "weight": each.nearest(limit) * each.scales}
        layer = _Layer(nodes[each.node.name], replace(each.node, constants=constants), each)
        layers.setdefault(name, []).append(layer)
    return layers


def _observe(layers: Iterable[_Layer], value: Tensor) -> None:
    """Add the mean error of each layer that reads `value`, for each of its output channels."""
    for layer in layers:
        if not value.numel():
            continue  # an expert that no token of these images reached
        error = operator_of(layer.node)([value]) - operator_of(layer.rounded)([layer.eight_bit.rounded_input(value)])
        channels = 1 if layer.node.op == "Conv" else error.ndim - 1
        layer.errors.append(error.mean([axis for axis in range(error.ndim) if axis != channels]))


def _bias_of(net: MultiTaskNet, program: Program, call: fx.Node) -> nn.Parameter | None:
    """The bias of the normalisation after a layer, or its own; None where it has neither."""
    calls = *(user for user in call.users if user in program.folded), call
    biases = (net.get_submodule(str(each.target)).bias for each in calls)
    return next((bias for bias in biases if isinstance(bias, nn.Parameter)), None)
