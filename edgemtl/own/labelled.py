"""Images that a net of one's own is rounded with, decided on and scored on: photos, or a data set with labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgemtl.data import Batch, Sample, Source, Split, collate, open_source
from edgemtl.errors import UserError, unknown_name
from edgemtl.own.photos import MOST_EACH, is_data_set, read_photos
from edgemtl.own.self_labelled import Files, SplitImages
from edgemtl.own.task_net import at_size
from edgemtl.runtime import Outputs
from edgemtl.tasks import Task, kind_of, map_outputs

__all__ = ["LabelledImages", "OwnImages", "Seen", "Spread", "at_label_size", "open_labelled", "open_own_images"]

Picture = NDArray[np.uint8]
Item = TypeVar("Item")
Seen = tuple[Picture, Batch | None]
"""A picture, and its labels where it has some."""


@dataclass(frozen=True)
class OwnImages:
    """Images that calibrate, that decide, and that are reported on; each is read when it is wanted.

    `name` is that of the data set, `photos` where there are no labels; `labelled` says whether every image that decides
    or is reported on has labels.
    """

    name: str
    fingerprint: str
    calibration: Sequence[Picture]
    validation: Sequence[Seen]
    test: Sequence[Seen]
    labelled: bool


def open_own_images(data: Path, size: tuple[int, int], tasks: Sequence[Task]) -> OwnImages:
    """The images of a folder of photos (`read_photos`), or of a data set with labels, read at `size`.

    At most 128 calibrate; of a data set all others are there.

    Raises `UserError` where neither is there, where labels do not fit the tasks, and where a task has none in a part.
    """
    if not is_data_set(data):
        photos = read_photos(data)
        unlabelled = _Photos(photos.validation), _Photos(photos.test)
        return OwnImages("photos", photos.fingerprint, Files(photos.calibration), *unlabelled, labelled=False)
    source = open_labelled(str(data), size, tasks)
    calibration = Spread(SplitImages(source.split("calibration")), MOST_EACH)
    labelled = _Labelled(source, "validation"), _Labelled(source, "test")
    return OwnImages(source.name, source.fingerprint, calibration, *labelled, labelled=True)


class Spread(Sequence[Item]):
    """At most so many items of a sequence, evenly spaced over the whole, each read when it is wanted."""

    def __init__(self, items: Sequence[Item], most: int) -> None:
        self._items, self._count = items, min(len(items), most)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, position: int) -> Item:  # type: ignore[override]
        return self._items[range(self._count)[position] * len(self._items) // self._count]


class _Photos(Sequence[Seen]):
    def __init__(self, paths: Sequence[Path]) -> None:
        self._pictures = Files(paths)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, position: int) -> Seen:  # type: ignore[override]
        return self._pictures[position], None


class _Labelled(Sequence[Seen]):
    def __init__(self, source: LabelledImages, split: Split) -> None:
        self._samples, self._tasks = source.split(split), source.tasks
        for task in self._tasks:
            if not any(np.any(sample.masks[task.name]) for sample in self._samples):
                raise UserError(
                    f"data set {source.name}: no {split} image has a valid label of task {task.name}: add some"
                )

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, position: int) -> Seen:  # type: ignore[override]
        sample = self._samples[position]
        return sample.image, collate([sample], self._tasks)


@dataclass(frozen=True)
class LabelledImages:
    """A data set of which a net's `tasks` alone are read; a `Source`."""

    source: Source
    tasks: tuple[Task, ...]

    @property
    def name(self) -> str:
        """See `Source`."""
        return self.source.name

    @property
    def size(self) -> tuple[int, int]:
        """See `Source`."""
        return self.source.size

    @property
    def fingerprint(self) -> str:
        """See `Source`."""
        return self.source.fingerprint

    @property
    def license_note(self) -> str:
        """See `Source`."""
        return self.source.license_note

    def split(self, name: Split) -> Sequence[Sample]:
        """See `Source`."""
        return self.source.split(name)


def open_labelled(data: str, size: tuple[int, int], tasks: Sequence[Task]) -> LabelledImages:
    """A data set (`open_source`) whose labels are of a net's tasks, whatever else it has labels of.

    Raises `UserError` where it lacks one of the tasks, or its labels are of another kind or number of channels.
    """
    source = open_source(data, size)
    _check_labels(source, tasks)
    return LabelledImages(source, tuple(tasks))


def _check_labels(source: Source, tasks: Sequence[Task]) -> None:
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
    return map_outputs(Tensor.numpy, at_size(tasks, map_outputs(torch.from_numpy, outputs), size))
