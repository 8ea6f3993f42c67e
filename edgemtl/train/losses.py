"""A task's loss and its distillation, as its kind has them, in full precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edgemtl.tasks import Task, kind_of

__all__ = ["distillation_loss", "label_tensors", "task_loss"]


def task_loss(task: Task, outputs: Mapping[str, Tensor], target: Tensor, mask: Tensor) -> Tensor:
    """The task's loss (a scalar) of its raw outputs against labels, over the positions where `mask` is true.

    Labels and masks are those of `edgemtl.data.Batch`, as tensors.
    """
    return kind_of(task).learning().loss(task, _planes(outputs), target, mask)


def distillation_loss(task: Task, outputs: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """Distance of a narrow design's raw outputs from the largest one's: in-place distillation (Yu and Huang 2019)."""
    return kind_of(task).learning().distill(task, _planes(outputs), _planes(teacher))


def _planes(outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """In FP32, one channel after another: sums over channels are then vectorised over pixels."""
    return {name: output.float().contiguous() for name, output in outputs.items()}


def label_tensors(labels: Any, device: torch.device | None = None) -> Any:
    """A batch's labels or masks as tensors: an array, or a tuple of one for each image where they differ in size."""
    if isinstance(labels, tuple):
        return tuple(label_tensors(each, device) for each in labels)
    return torch.from_numpy(labels).to(device)
