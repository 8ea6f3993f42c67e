"""Pruning without labels: what channels matter to a net's own outputs, and how far a narrower net is from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from edgemtl.data import Batch
from edgemtl.errors import UserError, brief
from edgemtl.models import TaskNet
from edgemtl.nas.prune.criterion import LossCriterion

__all__ = ["AgreementCriterion", "floor_without_labels"]

Outputs = Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True)
class AgreementCriterion(LossCriterion):
    """Images that decide without labels: a task's loss is one and its outputs' distance from those of `reference`.

    The distance of an image is the norm of the difference of all its values, over the root of the mean square of such
    norms of the reference: a rise of the loss by a share is what agreement falls by. At the reference itself slopes of
    the distance are zero. So the importance of a channel is the mean square of its effect on the outputs, to first
    order, as shares of these norms: the diagonal of the Gauss-Newton matrix, by random signs (Hutchinson 1990).
    """

    reference: TaskNet

    def check_labels(self) -> None:
        """Nothing: there are none."""

    def _loss(self, name: str, outputs: Outputs, batch: Batch) -> Tensor:
        apart = _row(outputs[name]) - self._rows[id(batch)][name]
        return 1 + apart.square().sum(1).sqrt().mean() / self._norms[name]

    def _importance(self, net: TaskNet, outputs: Outputs, batch: Batch) -> Tensor:
        parts = []
        for task in net.tasks:
            row = _row(outputs[task.name])
            signs = torch.randint(0, 2, row.shape, generator=self._random).to(row.dtype) * 2 - 1
            parts.append((row * signs).sum() / self._norms[task.name])
        return torch.stack(parts).sum()

    @cached_property
    def _random(self) -> torch.Generator:
        return torch.Generator().manual_seed(0)

    @cached_property
    def _rows(self) -> dict[int, dict[str, Tensor]]:
        """The reference's values for each batch that decides, by task."""
        with torch.no_grad():
            return {
                id(batch): {name: _row(own) for name, own in self.reference(image).items()}
                for batch, image in zip(self._batches, self._images, strict=True)
            }

    @cached_property
    def _norms(self) -> dict[str, float]:
        """The root of the mean square of the norms of a task's values, over all images."""
        squares = {
            task.name: torch.cat([rows[task.name].square().sum(1) for rows in self._rows.values()])
            for task in self.reference.tasks
        }
        return {name: max(float(each.mean().sqrt()), 1e-12) for name, each in squares.items()}


def _row(outputs: Mapping[str, Tensor]) -> Tensor:
    """All values of each image, (N, values); an output may be one number an image, (N,)."""
    return torch.cat([each.flatten(1) if each.dim() > 1 else each.reshape(-1, 1) for each in outputs.values()], dim=1)


def floor_without_labels(text: str, metric: str, task: str) -> UserError:
    """The error for a floor on a task's metric, or on its value, of which nothing is known without labels."""
    return UserError(
        f"floor {brief(text)}: photos have no labels, so that {metric} of {task} is not known: give a data set with "
        f"labels by --data, or what its agreement with the float net may lose, for example {task}=1%"
    )
