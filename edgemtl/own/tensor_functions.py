"""Operators of ONNX that no one function of PyTorch has; trainable graphs call these.

Each reads its sizes from the tensor it is given, not from the graph, wherever it can: a layer may have lost channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "average_pool",
    "broadcast",
    "depth_to_space",
    "hard_sigmoid",
    "lp_norm",
    "max_pool",
    "pick",
    "prelu",
    "regroup",
    "regroupings",
    "softmax",
    "space_to_depth",
    "take",
]

Regrouping = tuple[tuple[int, ...], tuple[int, ...]]
"""Axes of a tensor, and the sizes that they become together."""


def regroupings(before: Sequence[int], after: Sequence[int]) -> tuple[Regrouping, ...]:
    """The least groups of axes of a shape that a reshape to another one merges or splits, in order."""
    groups: list[Regrouping] = []
    one = two = 0
    while one < len(before) and two < len(after):
        first, second = one + 1, two + 1
        while prod(before[one:first]) != prod(after[two:second]):
            if prod(before[one:first]) < prod(after[two:second]):
                first += 1
            else:
                second += 1
        groups.append((tuple(range(one, first)), tuple(after[two:second])))
        one, two = first, second
    rest = tuple(range(one, len(before)))
    if rest and groups:
        axes, sizes = groups.pop()
        groups.append(((*axes, *rest), sizes))
    elif rest:
        groups.append((rest, ()))
    return (*groups, *(((), (size,)) for size in after[two:]))


def regroup(x: Tensor, groups: Sequence[Regrouping]) -> Tensor:
    """A reshape by its `regroupings`; what one axis is made of may have lost channels, a split has the sizes it had."""
    shape: list[int] = []
    for axes, sizes in groups:
        large = [position for position, size in enumerate(sizes) if size != 1]
        made = list(sizes)
        if sizes and len(large) <= 1:
            made[large[0] if large else 0] = prod(x.shape[axis] for axis in axes)
        shape += made
    return x.reshape(shape)


def broadcast(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """Repeated along axes of one position, as ONNX's Expand has it."""
    return x.expand(torch.broadcast_shapes(x.shape, tuple(sizes)))  # type: ignore[no-untyped-call]


def softmax(x: Tensor, axis: int, logarithm: bool) -> Tensor:
    """Softmax over all axes from `axis` on, as ONNX had it before operator set 13."""
    flat = x.flatten(axis)
    return (flat.log_softmax(-1) if logarithm else flat.softmax(-1)).reshape(x.shape)


def hard_sigmoid(x: Tensor, alpha: float, beta: float) -> Tensor:
    """A line of this slope and offset, between 0 and 1."""
    return (alpha * x + beta).clamp(0, 1)


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """`slope` times the negative values; it may have any shape that broadcasts."""
    return torch.where(x < 0, slope * x, x)


def lp_norm(x: Tensor, axis: int, p: int) -> Tensor:
    """Divided by the norm along an axis."""
    norm: Tensor = torch.linalg.vector_norm(x, p, axis, keepdim=True)
    return x / norm


def take(x: Tensor, index: Tensor, axis: int) -> Tensor:
    """Positions along an axis, in the shape of `index`."""
    taken = x.index_select(axis, index.flatten())
    return taken.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def pick(x: Tensor, slices: Sequence[tuple[int, int, int, int]]) -> Tensor:
    """Slices (axis, start, end, step) of a tensor; a step may be negative."""
    for axis, start, end, step in slices:
        if step > 0:
            x = x[(slice(None),) * axis + (slice(start, end, step),)]
        else:
            positions = range(x.shape[axis])[start : end if end >= 0 else None : step]
            x = x.index_select(axis, torch.tensor([*positions], device=x.device))
    return x


def depth_to_space(x: Tensor, size: int, first: bool) -> Tensor:
    """Blocks of `size` x `size` pixels out of channels, the position being the `first` part of a channel's number."""
    if not first:
        return F.pixel_shuffle(x, size)
    count, channels, height, width = x.shape
    parts = x.reshape(count, size, size, channels // size**2, height, width)
    return parts.permute(0, 3, 4, 1, 5, 2).reshape(count, channels // size**2, height * size, width * size)


def space_to_depth(x: Tensor, size: int) -> Tensor:
    """The reverse, the position being the first part of a channel's number."""
    count, channels, height, width = x.shape
    parts = x.reshape(count, channels, height // size, size, width // size, size)
    return parts.permute(0, 3, 5, 1, 2, 4).reshape(count, channels * size**2, height // size, width // size)


def max_pool(
    x: Tensor,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    ceil: bool,
) -> Tensor:
    """Maximum over windows; `pads` are those of torch's `pad`, from the last axis on."""
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel) - 1]
    padded = F.pad(x, list(pads), value=float("-inf")) if any(pads) else x
    return pool(padded, list(kernel), list(strides), 0, list(dilations), ceil)


def average_pool(
    x: Tensor, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int], ceil: bool, counted: bool
) -> Tensor:
    """Mean over windows; what `pads` adds is `counted` as zeros, or not at all."""
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel) - 1]
    if not any(pads):
        return pool(x, list(kernel), list(strides), 0, ceil)
    padded = pool(F.pad(x, list(pads)), list(kernel), list(strides), 0, ceil)
    if counted:
        return padded
    valid = F.pad(torch.ones_like(x[:, :1]), list(pads))
    return padded / pool(valid, list(kernel), list(strides), 0, ceil)
