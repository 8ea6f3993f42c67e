"""Learning of a kind of task, with torch: the record that its `learning` module fills, and common parts.

Functions take a task's raw outputs in FP32 by name, and labels and mask as the kind's `collate` made them, as tensors
on whichever device the net is. Masked-out positions count nowhere. Losses are scaled so that those of a half-trained
net are of the same order.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemtl.tasks.scores import ratio_of_counts
from edgemtl.tasks.task import Metric, Task

__all__ = [
    "CountScore",
    "Learning",
    "MeanScore",
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


@dataclass
class MeanScore:
    """Metrics that are means over all valid labels, each in the `power` that it declares.

    `values(task, outputs, labels, mask)` are a batch's by the metric's name, of valid labels alone. Where one is NaN
    its metric is, and where none was added.
    """

    task: Task
    values: Callable[[Task, Tensors, Any, Tensor], Mapping[str, Tensor]]
    sums: dict[str, list[Tensor]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def update(self, outputs: Tensors, labels: Any, mask: Tensor) -> None:
        """See `Score.update`; sums stay where the outputs are, so that no batch waits for a GPU."""
        for name, each in self.values(self.task, outputs, labels, mask).items():
            self.sums.setdefault(name, []).append(each.sum(dtype=torch.float64))
            self.counts[name] += each.numel()

    def compute(self) -> dict[str, float]:
        """See `Score.compute`."""
        return {metric.name: self._mean(metric) for metric in self.task.metrics}

    def _mean(self, metric: Metric) -> float:
        count = self.counts[metric.name]
        mean = sum(map(float, self.sums[metric.name])) / count if count else math.nan
        return float(mean ** (1 / (metric.power or 1)))


@dataclass
class CountScore:
    """The deciding metric where it is a `ratio` of counts over all images, which `Learning.counts` says."""

    task: Task
    counts: Callable[[Task, Tensors, Any, Tensor], Tensor]
    sums: list[Tensor] = field(default_factory=list)

    def update(self, outputs: Tensors, labels: Any, mask: Tensor) -> None:
        """See `Score.update`; counts stay where the outputs are, so that no batch waits for a GPU."""
        self.sums.append(self.counts(self.task, outputs, labels, mask).sum(0))

    def compute(self) -> dict[str, float]:
        """See `Score.compute`."""
        counts = torch.stack([each.cpu() for each in self.sums]).sum(0)
        return {self.task.metric.name: ratio_of_counts(self.task.metric, counts.numpy())}


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
