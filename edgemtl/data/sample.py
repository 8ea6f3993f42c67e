"""Data sets: samples with a validity mask per task, sources, and batches for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args, overload

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import UserError, unknown_name
from edgemtl.files.images import normalize
from edgemtl.tasks import Task, kind_of

__all__ = ["SPLITS", "Batch", "Sample", "Samples", "Source", "Split", "collate", "require_split"]

Array = NDArray[Any]
Split = Literal["train", "calibration", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Sample:
    """One image with a target and a validity mask per task.

    `image` is uint8 (H, W, 3). A target has the form of its task's kind (see `edgemtl.tasks.Kind`), which may differ in
    size from image to image; masks are boolean. What a target holds under a false mask is finite and means nothing.
    """

    image: NDArray[np.uint8]
    targets: dict[str, Array]
    masks: dict[str, NDArray[np.bool_]]


class Source(Protocol):
    """A data set: its tasks, and four disjoint splits of samples of one size (height, width).

    `fingerprint` is a hash of all it holds; `license_note` is empty where nothing restricts its use. Training reads
    samples from several threads.
    """

    @property
    def name(self) -> str:
        """Name in messages and reports."""
        ...

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that it has labels of."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of every image, in pixels."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash of all that it holds."""
        ...

    @property
    def license_note(self) -> str:
        """Restrictions on its use; empty where there are none."""
        ...

    def split(self, name: Split) -> Sequence[Sample]:
        """Samples of one split; raises `UserError` for another name."""
        ...


class Samples(Sequence[Sample]):
    """A split that reads its samples one by one; slices and negative indices work as in a list."""

    def read(self, position: int) -> Sample:
        """The sample at an index from 0 to the length less one."""
        raise IndexError(position)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        positions = range(len(self))[index]
        return self.read(positions) if isinstance(positions, int) else [self.read(position) for position in positions]


@dataclass(frozen=True)
class Batch:
    """Samples put together: `image` float32 (N, 3, H, W) normalised, and what the kinds of their tasks make of labels.

    Targets are an array, or a tuple of one for each image where their sizes differ; masks are (N, ...).
    """

    image: NDArray[np.float32]
    targets: dict[str, Any]
    masks: dict[str, NDArray[np.bool_]]


def collate(samples: Sequence[Sample], tasks: Sequence[Task] = ()) -> Batch:
    """A batch of samples of one size, with the labels of `tasks` (none: images alone).

    Raises `UserError` where sizes differ, or a sample lacks one of the tasks.
    """
    if not samples:
        raise UserError("a batch needs at least one sample, 0 were given")
    sizes = sorted({sample.image.shape for sample in samples})
    if len(sizes) > 1:
        raise UserError(
            f"a batch needs images of one size, {' and '.join(map(str, sizes))} were given: crop or resize them"
        )
    if lacking := [task.name for task in tasks if any(task.name not in sample.targets for sample in samples)]:
        raise UserError(f"a batch needs samples of the same tasks, some have no label of {', '.join(lacking)}")
    targets: dict[str, Any] = {}
    masks: dict[str, NDArray[np.bool_]] = {}
    for task in tasks:
        own = [sample.targets[task.name] for sample in samples], [sample.masks[task.name] for sample in samples]
        targets[task.name], masks[task.name] = kind_of(task).collate(*own)
    return Batch(normalize(np.stack([sample.image for sample in samples])), targets, masks)


def require_split(name: str) -> Split:
    """The name as a split; raises `UserError` with the nearest names for any other."""
    for split in SPLITS:
        if name == split:
            return split
    raise unknown_name("split", name, SPLITS)
