"""A layer of experts in fixed point: its sizes, its formats, and its parameters as integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import UnsupportedError
from edgemtl.spaces import expert_capacity
from edgemtl.targets.hls.fixed import Format, Integers, fitting

if TYPE_CHECKING:
    from torch import nn

    from edgemtl.models import Experts

__all__ = ["BIAS", "EXP", "GATE", "LOGIT", "ExpertsLayer", "Linear", "fixed_experts"]

BIAS, LOGIT = Format(32, 20), Format(32, 20)
EXP = Format(26, 24)
"""Exponentials of what is at most 0, and reciprocals of sums of at least 1."""
GATE = Format(18, 16)
_ACTIVATION = Format(24, 18)
"""A product with a weight of 16 bits takes one DSP slice, which multiplies 27 by 18 bits."""
_WEIGHT_BITS = 16
_SUM_LIMIT = 63
_Reals: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Weights and biases."""


@dataclass(frozen=True)
class Linear:
    """Weights of a linear layer, or of one for each expert, (..., outputs, inputs) and biases (..., outputs)."""

    weights: Integers
    biases: Integers


@dataclass(frozen=True)
class ExpertsLayer:
    """A layer of experts whose parameters are integers: what the HLS sources and the emulator compute.

    `routers` are by task, each of all experts: one that a task does not reach has the lowest bias. `expand` and
    `project` are the experts' two layers; their formats, `router_format` included, are those of weights. `tokens` is
    how many an image has; by task, a token goes to `top_k` experts, and an expert takes `capacity` tokens at most.
    """

    tokens: int
    top_k: Mapping[str, int]
    capacity: Mapping[str, int]
    renormalise: bool
    activation: Format
    router_format: Format
    expand_format: Format
    project_format: Format
    routers: Mapping[str, Linear]
    expand: Linear
    project: Linear

    @property
    def experts(self) -> int:
        """How many experts the layer has."""
        return len(self.expand.weights)

    @property
    def hidden(self) -> int:
        """Outputs of an expert's first layer."""
        return int(self.expand.weights.shape[1])

    @property
    def width(self) -> int:
        """Channels of a token."""
        return int(self.expand.weights.shape[2])

    @property
    def sum_bits(self) -> int:
        """Bits that hold any sum of products with its bias."""
        formats = (self.router_format, self.expand_format, self.project_format)
        biased = max(BIAS.bits + self.activation.fraction + each.fraction - BIAS.fraction for each in formats)
        terms = max(self.width, self.hidden).bit_length()
        return 1 + max(self.activation.bits + self.expand_format.bits + terms, biased)

    @property
    def total_bits(self) -> int:
        """Bits that hold the sum of a softmax's exponentials, none above 1."""
        return EXP.fraction + 1 + self.experts.bit_length()

    @property
    def weight_bytes(self) -> int:
        """Parameters as they lie in the board's memory."""
        linears = (*self.routers.values(), self.expand, self.project)
        return sum(2 * each.weights.size + 4 * each.biases.size for each in linears)


def fixed_experts(
    layer: Experts, tokens: int, activation: Format = _ACTIVATION, weight_bits: int = _WEIGHT_BITS
) -> ExpertsLayer:
    """A torch layer of experts in fixed point, for images of `tokens`; weights have the places that their range leaves.

    Raises `UnsupportedError` for experts of several sizes, for tasks of which only some divide gates by their sum, and
    for widths whose sums no 63 bits hold.
    """
    plans = {name: layer.router(name).routing.plan for name in layer.routers}
    if len({plan.renormalise for plan in plans.values()}) > 1:
        raise UnsupportedError("target hls: only some tasks of a layer divide gates by their sum: give all the same")
    numbers = sorted(map(int, layer.experts))
    routers = {name: _router(layer, name, numbers) for name in layer.routers}
    first, second = zip(*(_arrays(layer.experts[str(number)]) for number in numbers), strict=True)
    if len({weights.shape for weights, _ in first}) > 1:
        raise UnsupportedError("target hls: a layer's experts have different sizes: give all of them the same")
    formats = [fitting(weight_bits, [w for w, _ in each]) for each in (list(routers.values()), first, second)]
    # a weight needs one place to round away, and one of a router those that a logit has more than a token
    lowest = [max(1, LOGIT.fraction - activation.fraction + 1), *[max(1, BIAS.fraction - activation.fraction)] * 2]
    formats = [replace(each, fraction=max(each.fraction, low)) for each, low in zip(formats, lowest, strict=True)]
    router, expand, project = formats
    fixed = ExpertsLayer(
        tokens,
        {name: plan.top_k for name, plan in plans.items()},
        {name: expert_capacity(plan.capacity, tokens, len(plan.numbers), plan.top_k) for name, plan in plans.items()},
        any(plan.renormalise for plan in plans.values()),
        activation,
        router,
        expand,
        project,
        {name: Linear(router.integers(weights), BIAS.integers(biases)) for name, (weights, biases) in routers.items()},
        *(
            Linear(each.integers([w for w, _ in pairs]), BIAS.integers([b for _, b in pairs]))
            for each, pairs in ((expand, first), (project, second))
        ),
    )
    if fixed.sum_bits > _SUM_LIMIT:
        raise UnsupportedError(
            f"target hls: sums of {fixed.sum_bits} bits are needed, {_SUM_LIMIT} are possible: give activations or "
            f"weights fewer than {activation.bits} and {weight_bits} bits"
        )
    return fixed


def _arrays(expert: nn.Module) -> tuple[_Reals, _Reals]:
    """Weights and biases of an expert's two linear layers."""
    arrays = [parameter.detach().numpy().astype(np.float64) for parameter in expert.parameters()]
    return (arrays[0], arrays[1]), (arrays[2], arrays[3])


def _router(layer: Experts, name: str, numbers: list[int]) -> _Reals:
    """A task's router over all experts of the layer."""
    weight, bias = (each.detach().numpy() for each in layer.router(name).linear())
    positions = [numbers.index(number) for number in layer.numbers[name]]
    weights, biases = np.zeros((len(numbers), weight.shape[1])), np.full(len(numbers), -np.inf)
    weights[positions], biases[positions] = weight, bias
    return weights, biases
