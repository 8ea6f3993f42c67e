"""The arithmetic of a project in torch: to the bit what its C simulation computes, for whole batches and far sooner.

Every value is a whole number of steps of a power of two, which floating point holds exactly as long as its significand
is wide enough: values of 16 bits in FP32, sums of their products in FP64. Only where 24 bits hold every sum of a layer
are they taken in FP32, which is three times as fast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from edgemtl.models.graph import Graph, Node, operator_of
from edgemtl.models.quantization import Ranges
from edgemtl.targets.hls.fixed import Format
from edgemtl.targets.hls.layers import Layer, typed_layers
from edgemtl.tasks import map_outputs

__all__ = ["FixedNet"]

_Step = Callable[[Sequence[Tensor]], Tensor]
_EXACT_STEPS = 2.0**23
"""Sums of so many steps, and halves of a step, are exact in FP32."""


class FixedNet(nn.Module):
    """The project of a graph: for normalised images (N, 3, H, W) the tensor of each output of each task.

    Raises `UnsupportedError` for an operator that a project lacks, `UserError` for a tensor without a range.
    """

    def __init__(self, graph: Graph, precision: Mapping[str, str], ranges: Ranges) -> None:
        super().__init__()
        self.graph = graph
        self._image, layers = typed_layers(graph, precision, ranges)
        typed = {layer.node.name: layer for layer in layers}
        self._steps = [(node, _step(node, typed.get(node.name))) for node in graph.nodes]
        kept = set(graph.output_tensors)
        self._last = {name: node.name for node in graph.nodes for name in node.inputs if name not in kept}

    @torch.no_grad()
    def forward(self, image: Tensor) -> dict[str, dict[str, Tensor]]:
        """(N, 3, H, W) to the tensor of each output of each task."""
        values = {self.graph.input: _rounded(image.double(), self._image)}
        for node, step in self._steps:
            values[node.output] = step([values[name] for name in node.inputs])
            for name in node.inputs:
                if self._last.get(name) == node.name:
                    values.pop(name, None)
        return map_outputs(values.__getitem__, self.graph.outputs)


def _step(node: Node, layer: Layer | None) -> _Step:
    """The function of a node's inputs; without a layer it is the host's, and moves values only."""
    if layer is None:
        return operator_of(node)
    if layer.weight is not None:
        return _products(layer)
    if node.op == "Add":
        return lambda x: _rounded(x[0].double() + x[1], layer.result)
    if node.op == "GlobalAveragePool":
        return lambda x: _rounded(_mean(x[0].double(), layer.accum), layer.result)
    operator = operator_of(node)
    return lambda x: _rounded(operator(x), layer.result)


def _products(layer: Layer) -> _Step:
    """A convolution or linear layer: its parameters in their types, its sums exact, its result rounded once."""
    assert layer.weight is not None and layer.bias is not None
    weight = layer.node.constants["weight"].detach()
    bias = layer.node.constants.get("bias", torch.zeros(len(weight))).detach()
    constants = {"weight": _rounded(weight.double(), layer.weight), "bias": _rounded(bias.double(), layer.bias)}
    kind = torch.float32 if _sums_fit(layer, **constants) else torch.float64
    operator = operator_of(replace(layer.node, constants={key: each.to(kind) for key, each in constants.items()}))
    return lambda x: _rounded(operator([x[0].to(kind)]), layer.result)


def _sums_fit(layer: Layer, weight: Tensor, bias: Tensor) -> bool:
    """Whether FP32 holds every sum of a layer's products exactly."""
    assert layer.weight is not None
    largest = 2.0 ** (layer.entering.bits - 1 - layer.entering.fraction)
    step = 2.0 ** -(layer.entering.fraction + layer.weight.fraction)
    sums = weight.double().abs().flatten(1).sum(1) * largest + bias.double().abs()
    return float(sums.max()) <= _EXACT_STEPS * step


def _mean(value: Tensor, accum: Format | None) -> Tensor:
    """The mean over an image as the project divides: cut towards zero behind the places of its sum."""
    assert accum is not None
    scale = 2.0**accum.fraction
    return value.sum((2, 3), keepdim=True).mul_(scale).div_(value.shape[2] * value.shape[3]).trunc_().div_(scale)


def _rounded(value: Tensor, kind: Format) -> Tensor:
    """The nearest values of a type, halves upwards, in FP32 where it holds them."""
    limit = 2.0 ** (kind.bits - 1)
    steps = (value * 2.0**kind.fraction).add_(0.5).floor_().clamp_(-limit, limit - 1)
    return (steps / 2.0**kind.fraction).float()
