"""Any module, trained through eight bits: its layers round what enters them, and their weights, while it learns.

The gradient passes straight through (Bengio et al. 2013). Ranges are those of each batch: an engine's, which are
calibrated once training has ended, follow what the module has become.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from edgemtl.models.quantization.learning import rounded_weight
from edgemtl.models.quantization.plan import QuantScheme

__all__ = ["rounded_values", "rounding_layers"]

_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Linear)
_LEAST_SCALE = 1e-12


@contextmanager
def rounding_layers(module: nn.Module, scheme: QuantScheme) -> Iterator[None]:
    """Within it, convolutions and linear layers of a module compute on eight bits, as `scheme` writes them.

    Transposed convolutions and the projections inside `nn.MultiheadAttention` do not. Its parameters stay the same
    tensors; afterwards the module is as it was, but for what it has learnt.
    """
    with ExitStack() as stack:
        for layer in [each for each in module.modules() if isinstance(each, _LAYERS)]:
            stack.callback(layer.register_forward_pre_hook(partial(_round_inputs, scheme), with_kwargs=True).remove)
            parametrize.register_parametrization(layer, "weight", _RoundedWeight(scheme.weight_limit))
            stack.callback(parametrize.remove_parametrizations, layer, "weight", leave_parametrized=False)
        yield


def rounded_values(value: Tensor, scheme: QuantScheme) -> Tensor:
    """A tensor rounded to the 255 or 256 steps that a scheme has for its own range, which zero is always in."""
    lowest, highest = scheme.levels
    with torch.no_grad():
        low, high = value.amin().clamp(max=0), value.amax().clamp(min=0)
        if scheme.symmetric:
            high = torch.maximum(high, -low)
            low = -high
        scale = ((high - low) / (highest - lowest)).clamp(min=_LEAST_SCALE)
        zero = (lowest - low / scale).round()
        steps = (value / scale + zero).round().clamp(lowest, highest)
        change = (steps - zero) * scale - value
    return value + change


def _round_inputs(
    scheme: QuantScheme, layer: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    (value,) = (*inputs, *named.values())
    return (rounded_values(value, scheme),), {}


class _RoundedWeight(nn.Module):
    """A parametrization of weights, output channels first: rounded to whole steps, of at most `limit`."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def forward(self, weight: Tensor) -> Tensor:
        return rounded_weight(weight, self._limit)
