"""Learning of a kind of task, with torch: the record that its `learning` module fills, and common parts.

Functions take a task's raw outputs in FP32 by name, and labels and mask as the kind's `collate` made them, as tensors
on whichever device the net is. Masked-out positions count nowhere. Losses are scaled so that those of a half-trained
net are of the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric as TorchMetric

from edgemtl.tasks.task import Task

__all__ = [
    "Learning",
    "MetricSet",
    "Score",
    "Tensors",
    "cross_entropy",
    "log_probabilities",
    "masked_mean",
    "no_noise",
    "only_tensor",
    "soft_cross_entropy",
    "uncounted",
    "unprepared",
]

Tensors = Mapping[str, Tensor]
"""A task's tensors by the name of their output."""


class Score(Protocol):
    """A task's metrics over batches."""

    def update(self, outputs: Tensors, labels: Any, mask: Tensor) -> None:
        """Add a batch, in which something is valid."""
        ...

    def compute(self) -> dict[str, float]:
        """Every metric of the kind by name, over all that was added."""
        ...


def no_noise(task: Task, scores: Mapping[str, float], images: int) -> float:
    """Zero: the error of a score that is not known to have any."""
    return 0.0


def uncounted(task: Task, outputs: Tensors, labels: Any, mask: Tensor) -> Tensor:
    """No counts (N, 0, 3): of a kind whose metrics are no ratios of them."""
    return torch.zeros(len(mask), 0, 3, dtype=torch.int64)


def unprepared(task: Task, outputs: Tensors) -> Tensors:
    """The outputs as they are: what losses read where they have nothing in common to prepare."""
    return outputs


@dataclass(frozen=True)
class Learning:
    """How a kind is learnt.

    `loss(task, outputs, labels, mask)` is a scalar, zero (with gradients of zero) where nothing is valid.
    `distill(task, outputs, teacher)` is how far a narrow design's outputs are from the largest one's (in-place
    distillation, Yu and Huang 2019), lowest where they are equal. Both read what `prepare(task, outputs)` makes once of
    a net's raw outputs, such as logarithms of probabilities. `metric(task)` begins a score of raw outputs.
    `noise(task, scores, images)` is the standard error of the deciding metric over so many images, relative to it; zero
    where unknown. `counts(task, outputs, labels, mask)` are the right, false and missed labels (N, K, 3) of each image
    of a batch, of K classes or thresholds: what metrics that are ratios follow from.
    """

    loss: Callable[[Task, Tensors, Any, Tensor], Tensor]
    distill: Callable[[Task, Tensors, Tensors], Tensor]
    metric: Callable[[Task], Score]
    noise: Callable[[Task, Mapping[str, float], int], float] = no_noise
    prepare: Callable[[Task, Tensors], Tensors] = unprepared
    counts: Callable[[Task, Tensors, Any, Tensor], Tensor] = uncounted


@dataclass(frozen=True)
class MetricSet:
    """A score made of torchmetrics' metrics, which `add` updates."""

    metrics: Mapping[str, TorchMetric]
    add: Callable[[Tensors, Any, Tensor], None]

    def __post_init__(self) -> None:
        """Keep scores one process's own: torchmetrics would wait for others that train together but score nothing."""
        for metric in self.metrics.values():
            metric.distributed_available_fn = lambda: False

    def update(self, outputs: Tensors, labels: Any, mask: Tensor) -> None:
        """See `Score.update`; sums are kept where the outputs are."""
        for metric in self.metrics.values():
            metric.to(mask.device)
        self.add(outputs, labels, mask)

    def compute(self) -> dict[str, float]:
        """See `Score.compute`."""
        return {name: float(metric.compute()) for name, metric in self.metrics.items()}


def only_tensor(outputs: Tensors) -> Tensor:
    """The tensor of a task that has one output."""
    (tensor,) = outputs.values()
    return tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over valid positions; zero (with a gradient of zero) where there is none."""
    weights = mask.to(values.dtype)
    return (values * weights).sum() / weights.sum().clamp(min=1)


def log_probabilities(task: Task, outputs: Tensors) -> Tensors:
    """Logarithms of the probabilities that logits mean, which both cross-entropies read."""
    return {name: logits.log_softmax(1) for name, logits in outputs.items()}


def cross_entropy(task: Task, prepared: Tensors, labels: Tensor, mask: Tensor) -> Tensor:
    """Mean cross-entropy of `log_probabilities` against class ids."""
    error = F.nll_loss(only_tensor(prepared), torch.where(mask, labels, 0), reduction="none")
    return masked_mean(error, mask)


def soft_cross_entropy(task: Task, prepared: Tensors, teacher: Tensors) -> Tensor:
    """Mean cross-entropy of `log_probabilities` against a teacher's."""
    return -(only_tensor(teacher).exp() * only_tensor(prepared)).sum(1).mean()
