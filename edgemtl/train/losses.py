"""A task's loss and its distillation, as its kind has them, in full precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edgemtl.tasks import Task, kind_of

__all__ = ["distillation_loss", "label_loss", "label_tensors", "planes", "prepared", "task_loss", "to_device"]


def task_loss(task: Task, outputs: Mapping[str, Tensor], target: Tensor, mask: Tensor) -> Tensor:
    """The task's loss (a scalar) of its raw outputs, best as `planes`, against labels where `mask` is true.

    Labels and masks are those of `edgemtl.data.Batch`, as tensors.
    """
    return label_loss(task, prepared(task, outputs), target, mask)


def prepared(task: Task, outputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The part that label loss and distillation have in common, made once of a net's raw outputs."""
    return kind_of(task).learning().prepare(task, outputs)


def label_loss(task: Task, outputs: Mapping[str, Tensor], target: Tensor, mask: Tensor) -> Tensor:
    """The task's loss (a scalar) of `prepared` outputs against labels where `mask` is true."""
    return kind_of(task).learning().loss(task, outputs, target, mask)


def distillation_loss(task: Task, outputs: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """Distance of a narrow design's outputs from the largest one's: in-place distillation (Yu and Huang 2019).

    Both are `prepared`.
    """
    return kind_of(task).learning().distill(task, outputs, teacher)


def planes(output: Tensor) -> Tensor:
    """An output in FP32, one channel after another: sums over channels are then vectorised over pixels."""
    return output.float().contiguous()


def label_tensors(labels: Any, device: torch.device | None = None) -> Any:
    """A batch's labels or masks as tensors: an array, or a tuple of one for each image where they differ in size."""
    if isinstance(labels, tuple):
        return tuple(label_tensors(each, device) for each in labels)
    return to_device(torch.from_numpy(labels), device)


def to_device(tensor: Tensor, device: torch.device | None) -> Tensor:
    """A tensor on a device (None: where it is); a GPU copies it out of pinned memory while the program goes on."""
    return tensor if device is None else tensor.to(device, non_blocking=device.type == "cuda")
