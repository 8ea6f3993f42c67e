"""The largest net scaled evenly, as one does it by hand: all widths by one factor, until a latency is met."""

from __future__ import annotations

from collections.abc import Callable

import torch

from edgemtl.models import MultiTaskNet, Supernet
from edgemtl.spaces import Design, prunable_channels

MULTIPLE = 8
LEAST_SCALE = 0.1


def scaled_evenly(largest: Design, scale: float, multiple: int = MULTIPLE) -> Design:
    """A design with all its channels multiplied by `scale`, rounded to multiples; the depth and the kernels stay."""
    counts = prunable_channels(largest.plan)
    fewer = {
        name: min(count, max(multiple, multiple * round(scale * count / multiple))) for name, count in counts.items()
    }
    return largest.space.design(largest, fewer.items())


def net_of(supernet: Supernet, design: Design) -> MultiTaskNet:
    """The scaled design's net with the first channels of the supernet's, as narrow designs of the space have them."""
    net = MultiTaskNet(design.plan, design.space.tasks)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(supernet.part(name, tuple(parameter.shape)))
    return net.eval()


def scale_for(ratio: Callable[[float], float], tries: int, low: float = LEAST_SCALE) -> float:
    """The scale at which `ratio`, a latency over the wanted one, comes nearest to 1, by bisection between `low` and 1.

    Of what was tried the nearest that is no faster is taken: the net by hand gets the last word. The smallest scale is
    given where even that is slower, the whole net where that is faster.
    """
    high, tried = 1.0, {1.0: ratio(1.0)}
    for _ in range(tries if tried[1.0] > 1 else 0):
        middle = (low + high) / 2
        tried[middle] = ratio(middle)
        low, high = (low, middle) if tried[middle] >= 1 else (middle, high)
    slower = {scale: found for scale, found in tried.items() if found >= 1}
    return min(slower, key=lambda scale: slower[scale]) if slower else 1.0
