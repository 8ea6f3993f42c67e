"""How keypoints are learnt: heat maps against a bell around each point, scored by the points that are found (PCK)."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from edgemtl.tasks.learning import Learning, MeanScore, Tensors, masked_mean, only_tensor
from edgemtl.tasks.task import Task

__all__ = ["LEARNING", "heatmaps"]

_SIGMA = 1 / 48
_FOUND = 1 / 10
"""Both of the image's height."""


def heatmaps(points: Tensor, height: int, width: int) -> Tensor:
    """A bell of height 1 around each of the points (N, K, 2): (N, K, H, W)."""
    sigma = max(1.0, _SIGMA * height)
    x = torch.arange(width, device=points.device) - points[..., 0, None]
    y = torch.arange(height, device=points.device) - points[..., 1, None]
    return torch.exp(-(y.square()[..., None] + x.square()[..., None, :]) / (2 * sigma**2))


def _loss(task: Task, outputs: Tensors, labels: Tensor, mask: Tensor) -> Tensor:
    maps = only_tensor(outputs)
    return masked_mean((maps - heatmaps(labels, *maps.shape[2:])).square().mean((2, 3)), mask)


def _distill(task: Task, outputs: Tensors, teacher: Tensors) -> Tensor:
    return (only_tensor(outputs) - only_tensor(teacher)).square().mean()


def _values(task: Task, outputs: Tensors, labels: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """A point is found where its peak lies within a tenth of the image's height of it."""
    maps = only_tensor(outputs)
    best, width = maps.flatten(2).argmax(2), maps.shape[-1]
    apart = torch.hypot(best % width - labels[..., 0], best // width - labels[..., 1])
    return {"pck": (apart <= _FOUND * maps.shape[-2])[mask]}


LEARNING = Learning(_loss, _distill, partial(MeanScore, values=_values))
