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
from edgemtl.models.quantization.entering import Rounding, roundings
from edgemtl.models.quantization.plan import QuantScheme, Ranges, parameters_of, plan_quantization, weight_scales

__all__ = ["correct_biases"]


def correct_biases(
    net: MultiTaskNet, precision: Mapping[str, str], ranges: Ranges, scheme: QuantScheme, images: Iterable[Tensor]
) -> MultiTaskNet:
    """A copy of a recalibrated net whose INT8 layers have, channel by channel, the mean output that they have in float.

    The means are those over `images`, batches (N, 3, H, W), normalised. A layer without a bias, and without a
    normalisation after it, stays as it is; one that several tasks run gets the mean of its corrections.
    """
    corrected = net.copy()
    program = trace_program(corrected)
    layers = _layers(program, precision, ranges, scheme)
    for batch in images:
        run_graph(program.graph, batch, lambda name, value: _observe(layers.get(name, ()), value))
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
    rounding: Rounding
    scale: float
    errors: list[Tensor] = field(default_factory=list)


def _layers(
    program: Program, precision: Mapping[str, str], ranges: Ranges, scheme: QuantScheme
) -> dict[str, list[_Layer]]:
    """The INT8 layers by the tensor that they read."""
    graph = program.graph
    plan = plan_quantization(graph.nodes, precision, scheme, graph.output_tensors)
    layers: dict[str, list[_Layer]] = {}
    for node in (each for each in graph.nodes if each.name in plan.weights):
        name = node.inputs[0]
        entering = parameters_of(ranges[plan.source.get(name, name)], scheme)
        weight, bias = node.constants["weight"], node.constants.get("bias")
        given = None if bias is None else bias.numpy()
        shape = (-1, *[1] * (weight.ndim - 1))
        scales = torch.from_numpy(weight_scales(weight.numpy(), scheme, given, entering)).view(shape)
        whole = torch.clamp(torch.round(weight / scales), -scheme.weight_limit, scheme.weight_limit)
        rounded = replace(node, constants={**node.constants, "weight": whole * scales})
        rounding = roundings(graph, plan, {name: entering}, scheme, ())[name]
        layers.setdefault(name, []).append(_Layer(node, rounded, rounding, entering.scale))
    return layers


def _observe(layers: Iterable[_Layer], value: Tensor) -> None:
    """Add the mean error of each layer that reads `value`, for each of its output channels."""
    for layer in layers:
        if not value.numel():
            continue  # an expert that no token of these images reached
        error = operator_of(layer.node)([value]) - operator_of(layer.rounded)([layer.rounding(value) * layer.scale])
        channels = 1 if layer.node.op == "Conv" else error.ndim - 1
        layer.errors.append(error.mean([axis for axis in range(error.ndim) if axis != channels]))


def _bias_of(net: MultiTaskNet, program: Program, call: fx.Node) -> nn.Parameter | None:
    """The bias of the normalisation after a layer, or its own; None where it has neither."""
    calls = *(user for user in call.users if user in program.folded), call
    biases = (net.get_submodule(str(each.target)).bias for each in calls)
    return next((bias for bias in biases if isinstance(bias, nn.Parameter)), None)
