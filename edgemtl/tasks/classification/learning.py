"""How classification is learnt: cross-entropy, scored by accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy

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


def _metric(task: Task) -> MetricSet:
    accuracy = MulticlassAccuracy(task.channels, average="micro", validate_args=False)

    def add(outputs: Tensors, labels: Tensor, mask: Tensor) -> None:
        accuracy.update(only_tensor(outputs).argmax(1)[mask], labels[mask])

    return MetricSet({"accuracy": accuracy}, add)


def _noise(task: Task, scores: Mapping[str, float], images: int) -> float:
    """That of a binomial: a label an image."""
    share = max(scores["accuracy"], 1e-3)
    return math.sqrt((1 - share) / (share * images))


LEARNING = Learning(cross_entropy, soft_cross_entropy, _metric, _noise, log_probabilities)
