"""How regression is learnt: the L1 distance, which is its score too."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from edgemtl.tasks.learning import Learning, MeanScore, Tensors, masked_mean, only_tensor
from edgemtl.tasks.task import Task

__all__ = ["LEARNING"]


def _loss(task: Task, outputs: Tensors, labels: Tensor, mask: Tensor) -> Tensor:
    return masked_mean((only_tensor(outputs) - labels).abs().mean(dim=1), mask)


def _distill(task: Task, outputs: Tensors, teacher: Tensors) -> Tensor:
    return (only_tensor(outputs) - only_tensor(teacher)).abs().mean()


def _values(task: Task, outputs: Tensors, labels: Tensor, mask: Tensor) -> dict[str, Tensor]:
    return {"mae": (only_tensor(outputs) - labels).abs()[mask]}


LEARNING = Learning(_loss, _distill, partial(MeanScore, values=_values))
