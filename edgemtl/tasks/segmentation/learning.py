"""How segmentation is learnt: cross-entropy, scored by the mean intersection over union (mIoU)."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassJaccardIndex

from edgemtl.tasks.learning import (
    Learning,
    MetricSet,
    Tensors,
    cross_entropy,
    log_probabilities,
    only_tensor,
    soft_cross_entropy,
)
from edgemtl.tasks.task import Task

__all__ = ["LEARNING"]

IGNORED = -1


def _metric(task: Task) -> MetricSet:
    miou = MulticlassJaccardIndex(task.channels, ignore_index=IGNORED, validate_args=False)

    def add(outputs: Tensors, labels: Tensor, mask: Tensor) -> None:
        miou.update(only_tensor(outputs).argmax(1), torch.where(mask, labels, IGNORED))

    return MetricSet({"miou": miou}, add)


LEARNING = Learning(cross_entropy, soft_cross_entropy, _metric, prepare=log_probabilities)
