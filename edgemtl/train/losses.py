"""A loss for every kind of task; a masked-out pixel counts nowhere.

Each is scaled so that a half-trained net's losses are of the same order: equal weighting is then a fair start.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemtl.tasks import Task

__all__ = ["distillation_loss", "similarity", "task_loss"]

EDGE_POSITIVE_WEIGHT = 0.8
DEPTH_SCALE = 3.0
NORMALS_SCALE = 4.0
EDGE_SCALE = 5.0
MIN_DEPTH_M = 0.05


def _planes(output: Tensor) -> Tensor:
    """In FP32, one channel after another: sums over channels are then vectorised over pixels."""
    return output.float().contiguous()


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over valid places; zero (with a gradient of zero) where there is none."""
    weights = mask.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp(min=1)


def _cross_entropy(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    return _mean(F.cross_entropy(output, torch.where(mask, target, 0), reduction="none"), mask)


def _log_l1(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    error = (output[:, 0] - target.clamp(min=MIN_DEPTH_M).log()).abs()
    return DEPTH_SCALE * _mean(error, mask)


def _cosine(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    return NORMALS_SCALE * _mean(1 - similarity(output, target), mask)


def similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of the angle between vectors along dimension 1; three times as fast as PyTorch's for vectors of three."""
    lengths = (a.square().sum(1) * b.square().sum(1)).clamp(min=1e-12)
    return (a * b).sum(1) * lengths.rsqrt()


def _balanced_bce(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    weight = torch.where(target > 0.5, EDGE_POSITIVE_WEIGHT, 1 - EDGE_POSITIVE_WEIGHT)
    error = F.binary_cross_entropy_with_logits(output[:, 0], target, weight=weight, reduction="none")
    return EDGE_SCALE * _mean(error, mask)


def _heatmap_mse(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    return _mean((output - target).square().mean(dim=1), mask)


def _l1(output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    return _mean((output - target).abs().mean(dim=1), mask)


_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cross_entropy": _cross_entropy,
    "log_l1": _log_l1,
    "cosine": _cosine,
    "balanced_bce": _balanced_bce,
    "heatmap_mse": _heatmap_mse,
    "l1": _l1,
}


def task_loss(task: Task, output: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """The task's loss (a scalar) of raw outputs against targets, over the places where `mask` is true.

    Shapes as in `edgemtl.data.Batch`: outputs (N, C, H, W) or (N, C), targets and masks without the channel where the
    kind has one value a place.
    """
    return _LOSSES[task.loss](_planes(output), target, mask)


def distillation_loss(task: Task, output: Tensor, teacher: Tensor) -> Tensor:
    """How far a narrow design's raw output is from the largest one's: in-place distillation (Yu and Huang 2019).

    Soft cross-entropy for classes and edges, the task's own distance for the rest.
    """
    output, teacher = _planes(output), _planes(teacher)
    if task.loss == "cross_entropy":
        return -(teacher.softmax(1) * output.log_softmax(1)).sum(1).mean()
    if task.loss == "balanced_bce":
        return EDGE_SCALE * 0.4 * F.binary_cross_entropy_with_logits(output, teacher.sigmoid())
    if task.loss == "log_l1":
        return DEPTH_SCALE * (output - teacher).abs().mean()
    if task.loss == "cosine":
        return NORMALS_SCALE * (1 - similarity(output, teacher)).mean()
    return (output - teacher).square().mean() if task.loss == "heatmap_mse" else (output - teacher).abs().mean()
