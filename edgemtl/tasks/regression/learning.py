"""How regression is learnt: the L1 distance, which is its score too."""

from __future__ import annotations

from torch import Tensor
from torchmetrics import MeanMetric

from edgemtl.tasks.learning import Learning, MetricSet, Tensors, masked_mean, only_tensor
from edgemtl.tasks.task import Task

__all__ = ["LEARNING"]


def _loss(task: Task, outputs: Tensors, labels: Tensor, mask: Tensor) -> Tensor:
    return masked_mean((only_tensor(outputs) - labels).abs().mean(dim=1), mask)


def _distill(task: Task, outputs: Tensors, teacher: Tensors) -> Tensor:
    return (only_tensor(outputs) - only_tensor(teacher)).abs().mean()


def _metric(task: Task) -> MetricSet:
    mae = MeanMetric()

    def add(outputs: Tensors, labels: Tensor, mask: Tensor) -> None:
        mae.update((only_tensor(outputs) - labels).abs()[mask])

    return MetricSet({"mae": mae}, add)


LEARNING = Learning(_loss, _distill, _metric)
