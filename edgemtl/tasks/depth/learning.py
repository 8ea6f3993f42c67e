"""How depth is learnt: an L1 distance of log-metres, scored in metres and by ratios."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from edgemtl.tasks.learning import Learning, MeanScore, Tensors, masked_mean, only_tensor
from edgemtl.tasks.task import Task

__all__ = ["DEPTH_RANGE_M", "LEARNING"]

_SCALE = 3.0
_MIN_DEPTH_M = 0.05
DEPTH_RANGE_M = (0.1, 20.0)
"""Predicted depth is scored within this range, or within that of a batch's labels where they lie beyond it."""
_GOOD_RATIO = 1.25


def _loss(task: Task, outputs: Tensors, labels: Tensor, mask: Tensor) -> Tensor:
    error = (only_tensor(outputs)[:, 0] - labels.clamp(min=_MIN_DEPTH_M).log()).abs()
    return _SCALE * masked_mean(error, mask)


def _distill(task: Task, outputs: Tensors, teacher: Tensors) -> Tensor:
    return _SCALE * (only_tensor(outputs) - only_tensor(teacher)).abs().mean()


def _values(task: Task, outputs: Tensors, labels: Tensor, mask: Tensor) -> dict[str, Tensor]:
    truth = labels[mask]
    low, high = min(DEPTH_RANGE_M[0], float(truth.min())), max(DEPTH_RANGE_M[1], float(truth.max()))
    predicted = only_tensor(outputs)[:, 0].exp().clamp(low, high)[mask]
    error, ratio = predicted - truth, torch.maximum(predicted / truth, truth / predicted)
    return {"rmse": error.square(), "abs_rel": error.abs() / truth, "delta1": ratio < _GOOD_RATIO}


LEARNING = Learning(_loss, _distill, partial(MeanScore, values=_values))
