"""Pruning criteria from data: which channels matter least, and what a narrower net loses in each task.

Everything is decided on images of the calibration split; batch normalisation is measured anew on training images in
every trial, without which most trials would fail for their statistics alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from edgemtl.data import Batch, Source
from edgemtl.errors import UserError
from edgemtl.models import TaskNet, recalibrate
from edgemtl.nas.evaluation import recalibration_images
from edgemtl.nas.prune.cut import Group, Member, reads_along
from edgemtl.nas.prune.fitting import layer_of, values_of
from edgemtl.nas.prune.hooks import watched
from edgemtl.train import batches_of, evaluate, label_tensors, task_loss

__all__ = ["LossCriterion", "TrialOutcome"]

RECALIBRATION_IMAGES = 32
DECIDING_IMAGES = 64
BATCH = 16
GRADIENT_BATCH = 4


@dataclass(frozen=True)
class TrialOutcome:
    """Mean loss of each task that was asked for, and the first one above its limit: judging then ended early."""

    losses: Mapping[str, float]
    blocked: str | None = None


@dataclass(frozen=True)
class LossCriterion:
    """The images that decide, from one source."""

    source: Source

    def check_labels(self) -> None:
        """`UserError` where no image that decides has a valid label of some task, which any pruning would then suit."""
        for task in self.source.tasks:
            if not any(batch.masks[task.name].any() for batch in self._batches):
                raise UserError(
                    f"data set {self.source.name}: no calibration image has a valid label of task {task.name!r}, so "
                    "nothing would protect it: add labels, or remove the task"
                )

    def losses(self, net: TaskNet, names: Sequence[str], limits: Mapping[str, float] | None = None) -> TrialOutcome:
        """Losses of the tasks `names`, after recalibration; the net is changed and the other tasks are not run.

        Losses are never negative, so that a sum of them that is over its limit stays there: judging ends at once.
        """
        part = net.subset(names)
        recalibrate(part, self.recalibration)
        sums, total = dict.fromkeys(names, 0.0), sum(len(batch.image) for batch in self._batches)
        with torch.inference_mode():
            for batch, image in zip(self._batches, self._images, strict=True):
                outputs = part(image)
                for task in part.tasks:
                    sums[task.name] += len(image) * float(self._loss(task.name, outputs, batch)) / total
                excess = {name: _finite(sums[name] / max(limit, 1e-9)) for name, limit in (limits or {}).items()}
                worst = max(excess, key=lambda name: excess[name], default="")
                if excess.get(worst, 0.0) > 1:
                    return TrialOutcome({name: _finite(value) for name, value in sums.items()}, worst)
        return TrialOutcome({name: _finite(value) for name, value in sums.items()})

    def scores(self, net: TaskNet) -> dict[str, dict[str, float]]:
        """Metrics of a net, as it is, on the images that decide."""
        return evaluate(net, self.source.tasks, self._batches)

    def orders(self, net: TaskNet, groups: Sequence[Group]) -> dict[str, list[list[int]]]:
        """For every group and part its channels, the most important first; those of a head are one.

        A channel's importance is the mean square of what the losses would change by without it, to first order: the
        Taylor criterion (Molchanov et al. 2019) with its gate on all that reads the channel, so that it holds whatever
        normalises it. Every task's loss counts as a share of its own value; that is ours.
        """
        sums = {g.name: [torch.zeros(g.size // g.step) for _ in g.parts] for g in groups}
        parameters = [p for p in net.eval().parameters() if p.ndim > 1 and p.requires_grad]
        samples, tasks = self.source.split("calibration"), self.source.tasks
        for batch in batches_of(samples, GRADIENT_BATCH, DECIDING_IMAGES, tasks=tasks):
            outputs = net(torch.from_numpy(batch.image).to(memory_format=torch.channels_last))
            total = self._importance(net, outputs, batch)
            gradients = torch.autograd.grad(total, parameters, allow_unused=True)
            change = {id(p): p.detach() * s for p, s in zip(parameters, gradients, strict=True) if s is not None}
            for group in groups:
                for index, members in enumerate(group.parts):
                    each = _without(net, group.size, members, change).view(-1, group.step).sum(1)
                    sums[group.name][index] += each.square()
        return {group.name: [_order(part, group.step) for part in sums[group.name]] for group in groups}

    def output_gradients(self, net: TaskNet, names: Sequence[str]) -> dict[str, Tensor]:
        """For layers by their paths: the sum of squares of what the losses change by with each output, over positions.

        Losses are those of `orders`. Images go through the net one by one.
        """
        layers = {name: layer_of(net, name) for name in names}
        sums = {name: torch.zeros(len(layer.weight)) for name, layer in layers.items()}
        given: dict[str, Tensor] = {}

        def see(name: str, read: tuple[Tensor, ...], values: Tensor) -> None:
            given[name] = values

        samples, tasks = self.source.split("calibration"), self.source.tasks
        for batch in batches_of(samples, 1, DECIDING_IMAGES, tasks=tasks):
            with watched(layers, see), torch.enable_grad():
                total = self._importance(net, net.eval()(torch.from_numpy(batch.image)), batch)
            gradients = torch.autograd.grad(total, list(given.values()), allow_unused=True)
            for name, gradient in zip(given, gradients, strict=True):
                if gradient is not None:
                    sums[name] += values_of(layers[name], gradient).square().sum(0)
        return sums

    def _importance(self, net: TaskNet, outputs: Mapping[str, Mapping[str, Tensor]], batch: Batch) -> Tensor:
        """The sum whose change, squared, is a channel's importance: every task's loss, as a share of its own value."""
        losses = [self._loss(task.name, outputs, batch) for task in net.tasks]
        return torch.stack([loss / loss.detach().clamp(min=1e-6) for loss in losses]).sum()

    def _loss(self, name: str, outputs: Mapping[str, Mapping[str, Tensor]], batch: Batch) -> Tensor:
        """One task's loss on a batch that decides."""
        task = next(task for task in self.source.tasks if task.name == name)
        return task_loss(task, outputs[name], label_tensors(batch.targets[name]), label_tensors(batch.masks[name]))

    @cached_property
    def recalibration(self) -> list[Tensor]:
        """Training images that statistics of batch normalisation are measured on anew."""
        return recalibration_images(self.source, RECALIBRATION_IMAGES)

    @cached_property
    def _batches(self) -> list[Batch]:
        samples = self.source.split("calibration")
        return list(batches_of(samples, BATCH, DECIDING_IMAGES, tasks=self.source.tasks))

    @cached_property
    def _images(self) -> list[Tensor]:
        return [torch.from_numpy(batch.image).to(memory_format=torch.channels_last) for batch in self._batches]


def _order(importance: Tensor, step: int) -> list[int]:
    """Channels of the most important heads first, where a head has `step` of them in a row."""
    heads = importance.argsort(descending=True, stable=True)
    return [int(channel) for channel in (heads[:, None] * step + torch.arange(step)).flatten()]


def _without(net: nn.Module, size: int, members: Sequence[Member], change: Mapping[int, Tensor]) -> Tensor:
    """First-order change of the loss without each channel: the products of weight and slope of all that reads it."""
    reduced = torch.zeros(size)
    for member in members:
        layer = None if member.outputs else net.get_submodule(member.module)
        if layer is not None and id(layer.weight) in change:
            each = change[id(layer.weight)].transpose(0, reads_along(layer)).flatten(1).sum(1)
            reduced.index_add_(0, torch.tensor(member.channels), each[list(member.positions)])
    return reduced


def _finite(value: float) -> float:
    """A loss as a number that can be compared and written: what is not finite is the worst there is."""
    return value if math.isfinite(value) else 1e9
