"""How classification is learnt: cross-entropy, scored by accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

from torch import Tensor

from edgemtl.tasks.learning import (
    Learning,
    MeanScore,
    Tensors,
    cross_entropy,
    log_probabilities,
    only_tensor,
    soft_cross_entropy,
)
from edgemtl.tasks.task import Task

__all__ = ["LEARNING"]


def _values(task: Task, outputs: Tensors, labels: Tensor, mask: Tensor) -> dict[str, Tensor]:
    return {"accuracy": (only_tensor(outputs).argmax(1) == labels)[mask]}


def _noise(task: Task, scores: Mapping[str, float], images: int) -> float:
    """That of a binomial: a label an image."""
    share = max(scores["accuracy"], 1e-3)
    return math.sqrt((1 - share) / (share * images))


LEARNING = Learning(cross_entropy, soft_cross_entropy, partial(MeanScore, values=_values), _noise, log_probabilities)
