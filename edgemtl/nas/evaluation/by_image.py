"""Scores and counts of single images, which floors are watched by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgemtl.data import Batch
from edgemtl.nas.evaluation.stopping import ByImage
from edgemtl.tasks import Floor, Task, kind_of
from edgemtl.train import label_tensors, scores_by_image

__all__ = ["by_image", "counts_by_image"]

Outputs = Mapping[str, Mapping[str, Tensor]]


def by_image(outputs: Outputs, batch: Batch, floors: Sequence[Floor]) -> ByImage:
    """Read from a net's raw outputs for a batch what floors on means and on ratios of counts need of each image."""
    means = _tasks_of([floor for floor in floors if floor.metric.power is not None])
    ratios = _tasks_of([floor for floor in floors if floor.metric.ratio is not None])
    return ByImage(scores_by_image(outputs, batch, means), counts_by_image(outputs, batch, ratios))


def counts_by_image(outputs: Outputs, batch: Batch, tasks: Sequence[Task]) -> dict[str, list[NDArray[np.int64]]]:
    """Right, false and missed labels (K, 3) of each image of a batch, by task; see `Learning.counts`."""
    counts: dict[str, list[NDArray[np.int64]]] = {}
    with torch.inference_mode():
        for task in tasks:
            given = {name: output.float() for name, output in outputs[task.name].items()}
            device = next(iter(given.values())).device
            labels, mask = (label_tensors(part[task.name], device) for part in (batch.targets, batch.masks))
            counts[task.name] = list(kind_of(task).learning().counts(task, given, labels, mask).cpu().numpy())
    return counts


def _tasks_of(floors: Sequence[Floor]) -> list[Task]:
    return list({floor.task.name: floor.task for floor in floors}.values())
