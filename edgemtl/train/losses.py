"""A task's loss and its distillation, as its kind has them, in full precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edgemtl.tasks import Task, kind_of

__all__ = ["distillation_loss", "label_tensors", "planes", "task_loss"]


def task_loss(task: Task, outputs: Mapping[str, Tensor], target: Tensor, mask: Tensor) -> Tensor:
    """The task's loss (a scalar) of its raw outputs, as `planes`, against labels where `mask` is true.

    Labels and masks are those of `edgemtl.data.Batch`, as tensors.
    """
    return kind_of(task).learning().loss(task, outputs, target, mask)


def distillation_loss(task: Task, outputs: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """Distance of a narrow design's raw outputs from the largest one's: in-place distillation (Yu and Huang 2019).

    Both are given as `planes`.
    """
    return kind_of(task).learning().distill(task, outputs, teacher)


def planes(output: Tensor) -> Tensor:
    """An output in FP32, one channel after another: sums over channels are then vectorised over pixels."""
    return output.float().contiguous()


def label_tensors(labels: Any, device: torch.device | None = None) -> Any:
    """A batch's labels or masks as tensors: an array, or a tuple of one for each image where they differ in size."""
    if isinstance(labels, tuple):
        return tuple(label_tensors(each, device) for each in labels)
    return torch.from_numpy(labels).to(device)
