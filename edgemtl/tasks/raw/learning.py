"""How raw tensors are learnt: the L1 distance; the score is their agreement with a reference."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from edgemtl.tasks.learning import Learning, Tensors, masked_mean
from edgemtl.tasks.task import Task

__all__ = ["LEARNING"]


_LEAST = 1e-12
"""Keeps slopes finite where nothing differs."""


def _row(task: Task, outputs: Tensors) -> Tensor:
    """All values of each image in a row, (N, values)."""
    return torch.cat([_flat(outputs[output.name]) for output in task.outputs], dim=1)


def _flat(values: Tensor) -> Tensor:
    """(N, values), of one number an image too, (N,)."""
    return values.flatten(1) if values.dim() > 1 else values.reshape(-1, 1)


def _loss(task: Task, outputs: Tensors, labels: Tensor, mask: Tensor) -> Tensor:
    return masked_mean((_row(task, outputs) - labels).abs().mean(dim=1), mask)


def _distill(task: Task, outputs: Tensors, teacher: Tensors) -> Tensor:
    """The norm of the difference over that of the teacher's values: one less their agreement."""
    wanted = _row(task, teacher)
    apart = (_row(task, outputs) - wanted).square().sum()
    return ((apart + _LEAST) / (wanted.square().sum() + _LEAST)).sqrt()


@dataclass
class _Agreement:
    """One less the norm of the difference over the norm of the reference, over all images."""

    task: Task
    sums: list[Tensor] = field(default_factory=list)

    def update(self, outputs: Tensors, labels: Tensor, mask: Tensor) -> None:
        """See `edgemtl.tasks.learning.Score.update`."""
        apart = ((_row(self.task, outputs) - labels).double().square().sum(1) * mask).sum()
        self.sums.append(torch.stack([apart, (labels.double().square().sum(1) * mask).sum()]).detach().cpu())

    def compute(self) -> dict[str, float]:
        """See `edgemtl.tasks.learning.Score.compute`."""
        apart, norm = torch.stack(self.sums).sum(0).tolist()
        return {"agreement": 1 - (apart / max(norm, 1e-30)) ** 0.5}


LEARNING = Learning(_loss, _distill, _Agreement)
