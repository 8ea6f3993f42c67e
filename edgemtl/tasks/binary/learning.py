"""How edges and saliency are learnt: cross-entropy in which the rare class weighs more, scored by the best F.

That is F at the best single threshold for the whole data set (ODS), without a tolerance of position.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemtl.tasks.learning import CountScore, Learning, Tensors, masked_mean, only_tensor
from edgemtl.tasks.task import Task

__all__ = ["LEARNING"]

_POSITIVE_WEIGHT = 0.8
_SCALE = 5.0
_DISTILLATION_SCALE = 2.0
_THRESHOLDS = 39


def _loss(task: Task, outputs: Tensors, labels: Tensor, mask: Tensor) -> Tensor:
    weight = torch.where(labels > 0.5, _POSITIVE_WEIGHT, 1 - _POSITIVE_WEIGHT)
    logits = only_tensor(outputs)[:, 0]
    error = F.binary_cross_entropy_with_logits(logits, labels, weight=weight, reduction="none")
    return _SCALE * masked_mean(error, mask)


def _distill(task: Task, outputs: Tensors, teacher: Tensors) -> Tensor:
    chances = only_tensor(teacher).sigmoid()
    return _DISTILLATION_SCALE * F.binary_cross_entropy_with_logits(only_tensor(outputs), chances)


def _counts(task: Task, outputs: Tensors, labels: Tensor, mask: Tensor) -> Tensor:
    """Right, false and missed pixels at every threshold (N, thresholds, 3)."""
    chances = only_tensor(outputs)[:, 0].sigmoid().nan_to_num(-1.0)  # what is no number is above no threshold
    above = torch.bucketize(chances, torch.linspace(0, 1, _THRESHOLDS, device=chances.device), right=True)
    images = torch.arange(len(mask), device=mask.device).view(-1, 1, 1).expand_as(mask)
    bins = ((images * (_THRESHOLDS + 1) + above) * 2 + labels.long())[mask]
    of_bins = torch.bincount(bins, minlength=len(mask) * (_THRESHOLDS + 1) * 2).view(len(mask), -1, 2)
    false, right = of_bins.flip(1).cumsum(1).flip(1)[:, 1:].unbind(2)
    return torch.stack([right, false, of_bins[:, :, 1].sum(1, keepdim=True) - right], 2)


LEARNING = Learning(_loss, _distill, partial(CountScore, counts=_counts), counts=_counts)
