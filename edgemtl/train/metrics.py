"""Scores of raw outputs, in every task's own metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgemtl.data import Batch, Sample, collate
from edgemtl.errors import UserError
from edgemtl.tasks import Task, kind_of, map_outputs
from edgemtl.train.losses import label_tensors, to_device

__all__ = ["Scorer", "evaluate", "raw_outputs", "scores_by_image"]


class _TaskScore:
    """The metrics of one task, updated batch by batch."""

    def __init__(self, task: Task) -> None:
        self.task, self.score = task, kind_of(task).learning().metric(task)
        self.empty = True

    def update(self, outputs: Mapping[str, Tensor], target: Tensor, mask: Tensor) -> None:
        if bool(mask.any()):
            self.empty = False
            self.score.update(outputs, target, mask)

    def compute(self) -> dict[str, float]:
        if self.empty:
            raise UserError(f"task {self.task.name} cannot be scored: none of the samples has a valid label for it")
        return self.score.compute()


def _plain(output: Any) -> Tensor:
    """In FP32, one channel after another, without gradients."""
    return torch.as_tensor(output).detach().float().contiguous()


class Scorer:
    """Accumulates every task's metrics over samples; `compute` gives {task: {metric: value}}."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks
        self._scores = {task.name: _TaskScore(task) for task in tasks}

    def update(self, outputs: Mapping[str, Mapping[str, Any]], samples: Batch | Sequence[Sample]) -> None:
        """Add a batch of raw outputs (tensors or arrays, (N, …)) and the samples they belong to, in the same order."""
        batch = samples if isinstance(samples, Batch) else collate(samples, self._tasks)
        given = map_outputs(_plain, outputs)
        for name, score in self._scores.items():
            device = next(iter(given[name].values())).device
            labels = (label_tensors(part[name], device) for part in (batch.targets, batch.masks))
            score.update(given[name], *labels)

    @property
    def complete(self) -> bool:
        """Whether every task has had a valid label."""
        return not any(score.empty for score in self._scores.values())

    def compute(self) -> dict[str, dict[str, float]]:
        """Metrics of every task over all that was added; raises `UserError` for a task that had no valid label."""
        return {name: score.compute() for name, score in self._scores.items()}


def evaluate(
    net: nn.Module, tasks: Sequence[Task], batches: Iterable[Batch], bf16: bool = False
) -> dict[str, dict[str, float]]:
    """Metrics of a net (a module giving each task's raw outputs) over batches, with BF16 arithmetic where asked."""
    scorer = Scorer(tasks)
    for batch in batches:
        scorer.update(raw_outputs(net, batch, bf16), batch)
    return scorer.compute()


def raw_outputs(net: nn.Module, batch: Batch, bf16: bool = False) -> Mapping[str, Mapping[str, Tensor]]:
    """Outputs of a net for a batch, on its own device, without gradients, with BF16 arithmetic where asked."""
    device = next((parameter.device for parameter in net.parameters()), torch.device("cpu"))
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        image = to_device(torch.from_numpy(batch.image), device)
        outputs: Mapping[str, Mapping[str, Tensor]] = net(
            image.contiguous(memory_format=torch.channels_last)  # a third faster on processors
        )
        return outputs


def scores_by_image(
    outputs: Mapping[str, Mapping[str, Any]], batch: Batch, tasks: Sequence[Task]
) -> dict[str, list[dict[str, float]]]:
    """Metrics of each image of a batch by itself, by task; empty where it has no valid label."""
    given = map_outputs(_plain, outputs)
    scores: dict[str, list[dict[str, float]]] = {task.name: [] for task in tasks}
    with torch.inference_mode():
        for task in tasks:
            labels, masks = label_tensors(batch.targets[task.name]), label_tensors(batch.masks[task.name])
            for number in range(len(batch.image)):
                one, score = slice(number, number + 1), _TaskScore(task)
                score.update({name: each[one] for name, each in given[task.name].items()}, labels[one], masks[one])
                scores[task.name].append({} if score.empty else score.compute())
    return scores
