"""How real tensors become whole eight-bit steps on their way into a convolution, to the last bit of each runtime.

OpenVINO multiplies by a scale and adds a shift. In how many roundings depends on the operator that it does so in, which
follows from what wrote the tensor and who else reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Literal

import numpy as np
from torch import Tensor

from edgemtl.models.graph import Graph, Node
from edgemtl.models.quantization.plan import Parameters, QuantPlan, QuantScheme

__all__ = ["CLAMPS", "Rounding", "roundings", "to_steps"]

Rounding = Callable[[Tensor], Tensor]
_Kind = Literal["apart", "fused", "inverted"]

CLAMPS = ("Clip", "Relu")
_ACTIVATIONS = (*CLAMPS, "Gelu", "HardSwish", "Sigmoid")
_WEIGHTED = ("Conv", "Gemm")
_FUSING = ("GlobalAveragePool", "MaxPool", "Resize")
"""Operators that round their own results, besides convolutions."""


def roundings(
    graph: Graph, plan: QuantPlan, parameters: Mapping[str, Parameters], scheme: QuantScheme, written: Collection[str]
) -> dict[str, Rounding]:
    """For each tensor with parameters, from real numbers to steps around its zero point.

    Tensors in `written` are read as floats too.
    """
    if scheme.rounding == "divided":
        return {name: _divided(p) for name, p in parameters.items()}
    writers, readers = graph.writers(), graph.readers()

    def kind(name: str) -> _Kind:
        writer = writers.get(name)
        while writer is not None and writer.op in _ACTIVATIONS:
            writer = writers.get(writer.inputs[0])
        if writer is None or name in written:
            return "apart"
        if writer.op in _WEIGHTED:
            shifted = parameters[name].zero != parameters[name].low
            return "fused" if shifted or writer.name not in plan.weights else "inverted"
        return "fused" if writer.op in _FUSING or _sums_in_convolution(writer, writers, readers, plan) else "apart"

    return {name: _scaled(p, kind(name)) for name, p in parameters.items()}


def to_steps(scaled: Tensor, p: Parameters) -> Tensor:
    """Round (in place) to whole steps around the zero point, half to even, and clamp to eight bits."""
    return scaled.round_().clamp_(p.low - p.zero, p.high - p.zero)


def _sums_in_convolution(
    node: Node, writers: Mapping[str, Node], readers: Mapping[str, list[Node]], plan: QuantPlan
) -> bool:
    """Whether a float convolution before it does the sum; INT8 ones leave it to an operator of its own."""
    before = [writers[name] for name in node.inputs if name in writers and len(readers[name]) == 1]
    return node.op == "Add" and any(each.op in _WEIGHTED and each.name not in plan.weights for each in before)


def _divided(p: Parameters) -> Rounding:
    return lambda real: to_steps(real / p.scale, p)


def _scaled(p: Parameters, kind: _Kind) -> Rounding:
    """Steps as OpenVINO's FakeQuantize makes them, from a scale and a shift that follow from the limits in FP32.

    An operator of its own, and elementwise operators, multiply and then add (`apart`); convolutions, pooling and
    resizing do both in one rounding (`fused`). An INT8 convolution without a shift passes the scale's inverse on, which
    is inverted once more (`inverted`).
    """
    one = np.float32(1)
    low, high = (np.float32(level - p.zero) * np.float32(p.scale) for level in (p.low, p.high))
    levels, width = np.float32(p.high - p.low), high - low
    scale = levels / width

    def moved(real: Tensor) -> Tensor:
        if kind == "inverted":
            return real * float(one / (one / scale))
        if kind == "fused":
            return real.double().mul_(float(scale)).add_(float(-low * levels / width)).float()
        return (real * float(scale)).add_(float(-low * scale))

    return lambda real: moved(real).round_().add_(p.low).clamp_(p.low, p.high).sub_(p.zero)
