"""Images that a net of one's own is rounded with and compared on: photos, or a data set whose labels score it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from edgemtl.data import Batch, Source, collate, open_source
from edgemtl.errors import UserError, unknown_name
from edgemtl.own.photos import is_data_set, read_photos
from edgemtl.own.self_labelled import Files
from edgemtl.runtime import Outputs
from edgemtl.tasks import Task, kind_of
from edgemtl.train import subsample

__all__ = ["OwnImages", "at_label_size", "check_labels", "open_own_images"]

Picture = NDArray[np.uint8]
MOST_EACH = 128


@dataclass(frozen=True)
class OwnImages:
    """Pictures that calibrate, and others that are reported on; `labels` are those of the latter, None for photos.

    `name` is that of the data set, `photos` where there are no labels.
    """

    name: str
    calibration: Sequence[Picture]
    test: Sequence[Picture]
    labels: Sequence[Batch] | None = None


def open_own_images(data: Path, size: tuple[int, int], tasks: Sequence[Task]) -> OwnImages:
    """The images of a folder of photos (`read_photos`), or of a data set at `size` with labels of the tasks.

    At most 128 are in each part. Raises `UserError` where neither is there, and where labels do not fit the tasks.
    """
    if not is_data_set(data):
        photos = read_photos(data)
        return OwnImages("photos", Files(photos.calibration), Files(photos.test))
    source = open_source(str(data), size)
    check_labels(source, tasks)
    calibration, test = (subsample(source.split(name), MOST_EACH) for name in ("calibration", "test"))
    for task in tasks:
        if not any(np.any(sample.masks[task.name]) for sample in test):
            raise UserError(f"data set {source.name}: no test image has a valid label of task {task.name}: add some")
    labels = [collate([sample], tasks) for sample in test]
    return OwnImages(source.name, [sample.image for sample in calibration], [sample.image for sample in test], labels)


def check_labels(source: Source, tasks: Sequence[Task]) -> None:
    """`UserError` where a data set lacks a task of a net, or its labels are of another kind or number of channels."""
    labelled = {task.name: task for task in source.tasks}
    for task in tasks:
        if task.name not in labelled:
            raise UserError(
                f"{unknown_name('task of the net', task.name, labelled)} in data set {source.name}: call it so in the "
                "tasks file, put its output under unused there, or give a folder of photos without labels"
            )
        label = labelled[task.name]
        if kind_of(task) is not kind_of(label):
            raise UserError(
                f"task {task.name} is of kind {task.kind} in the tasks file, and of kind {label.kind} in data set "
                f"{source.name}: make both alike, or give a folder of photos without labels"
            )
        if task.channels != label.channels:
            raise UserError(
                f"labels of task {task.name} in data set {source.name} have {label.channels} channels or classes, the "
                f"output of the net has {task.channels}: give the data set that the net was trained on, or photos "
                "without labels"
            )


def at_label_size(tasks: Sequence[Task], outputs: Outputs, size: tuple[int, int]) -> Outputs:
    """A net's outputs with dense ones of the size (H, W) of labels: maps of another size are resized, bilinearly."""
    return {
        task.name: {
            output.name: _resized(value, size) if output.dense else value
            for output in task.outputs
            for value in [outputs[task.name][output.name]]
        }
        for task in tasks
    }


def _resized(value: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    if value.shape[2:] == size:
        return value
    resized: NDArray[np.float32] = functional.interpolate(torch.from_numpy(value), size, mode="bilinear").numpy()
    return resized
