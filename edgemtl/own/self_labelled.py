"""Unlabelled pictures as a data set whose labels are a net's own predictions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemtl.data import SPLITS, Sample, Samples, Split, require_split
from edgemtl.errors import naming
from edgemtl.files.images import normalize, read_picture, resize_picture
from edgemtl.own.photos import read_photos
from edgemtl.tasks import Task, kind_of

__all__ = ["Files", "SelfLabelled", "SplitImages", "blend", "open_pictures"]

Picture = NDArray[np.uint8]
Labels = Callable[[NDArray[np.float32]], Mapping[str, Mapping[str, NDArray[np.float32]]]]
"""From an image (1, 3, H, W), normalised, to each task's raw outputs."""
_CACHED = 128
_SMALL_BYTES = 2**28
_BLENDED, _RECOLOURED = 0.6, 0.15


class Files(Sequence[Picture]):
    """Pictures in files, as large as they are."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, position: int) -> Picture:  # type: ignore[override]
        return _read(self._paths[position])


@lru_cache(_CACHED)
def _read(path: Path) -> Picture:
    with naming(path):
        return read_picture(path)


class SplitImages(Sequence[Picture]):
    """The images of a source's split without their labels."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, position: int) -> Picture:  # type: ignore[override]
        return self._samples[position].image


class SelfLabelled:
    """Pictures in four splits, and what `labels` gives for each as its labels of `tasks`; a `Source`.

    `of` says whose predictions they are: a hash that becomes part of the fingerprint.
    """

    license_note = ""

    def __init__(
        self,
        name: str,
        pictures: Mapping[Split, Sequence[Picture]],
        content: str,
        size: tuple[int, int],
        tasks: Sequence[Task],
        labels: Labels,
        of: str,
    ) -> None:
        self.name, self.size, self.tasks = name, size, tuple(tasks)
        self.fingerprint = hashlib.sha256(f"{content} {of}".encode()).hexdigest()[:16]
        self._pictures, self._labels = pictures, labels
        self._small = dict[tuple[int, float], Picture]()

    def split(self, name: Split) -> Sequence[Sample]:
        """Samples of one split, labelled as they are read; raises `UserError` for another name."""
        return _Labelled(self._pictures[require_split(name)], self.size, self.tasks, self._labels)

    def windows(self, count: int, generator: np.random.Generator, least: float = 0.5) -> NDArray[np.float32]:
        """Training images (N, 3, H, W), normalised: windows, each side `least` or more of a picture's, or mirrored."""
        picks = generator.integers(len(self._pictures["train"]), size=count)
        shrunk = (self._shrunk(int(pick), least) for pick in picks)
        return normalize(np.stack([_window(picture, self.size, generator, least) for picture in shrunk]))

    def _shrunk(self, position: int, least: float) -> Picture:
        """A training picture no larger than its smallest windows need: windows of it are many, and cost what it has."""
        shrunk = self._small.get((position, least))
        if shrunk is None:
            picture = self._pictures["train"][position]
            height, width = (min(own, ceil(side / least)) for own, side in zip(picture.shape, self.size, strict=False))
            shrunk = resize_picture(picture, (height, width))
            if sum(each.nbytes for each in self._small.values()) < _SMALL_BYTES:
                self._small[position, least] = shrunk
        return shrunk


def blend(images: NDArray[np.float32], generator: np.random.Generator) -> NDArray[np.float32]:
    """Normalised images (N, 3, H, W), three fifths of them blended with another at random, all a little recoloured.

    Whatever a net gives of them is their label: few pictures become many (function matching, Beyer et al. 2022).
    """
    count = len(images)
    contrast = 1 + _RECOLOURED * generator.uniform(-1, 1, (count, 1, 1, 1))
    coloured = images * contrast + _RECOLOURED * generator.standard_normal((count, 3, 1, 1))
    own = np.where(generator.random(count) < _BLENDED, generator.random(count), 1.0)[:, None, None, None]
    return (own * coloured + (1 - own) * coloured[generator.permutation(count)]).astype(np.float32)


def _window(picture: Picture, size: tuple[int, int], generator: np.random.Generator, least: float) -> Picture:
    sides = [max(1, round(side * generator.uniform(least, 1.0))) for side in picture.shape[:2]]
    top, left = (int(generator.integers(whole - side + 1)) for whole, side in
                 zip(picture.shape[:2], sides, strict=True))  # fmt: skip
    window = resize_picture(np.ascontiguousarray(picture[top : top + sides[0], left : left + sides[1]]), size)
    return np.ascontiguousarray(window[:, ::-1]) if generator.random() < 0.5 else window


class _Labelled(Samples):
    def __init__(
        self, pictures: Sequence[Picture], size: tuple[int, int], tasks: Sequence[Task], labels: Labels
    ) -> None:
        self._pictures, self._size, self._tasks, self._labels = pictures, size, tasks, labels

    def __len__(self) -> int:
        return len(self._pictures)

    def read(self, position: int) -> Sample:
        """See `Samples.read`."""
        image = resize_picture(self._pictures[position], self._size)
        outputs = self._labels(normalize(image[None]))
        labels = {task.name: kind_of(task).pseudo_label(task, outputs[task.name], self._size) for task in self._tasks}
        targets, masks = ({name: pair[part] for name, pair in labels.items()} for part in (0, 1))
        return Sample(image, targets, masks)


def open_pictures(folder: Path, size: tuple[int, int], tasks: Sequence[Task], labels: Labels, of: str) -> SelfLabelled:
    """The pictures of a folder (`read_photos`); those that are trained on calibrate, too.

    Raises `UserError` where they are too few.
    """
    photos = read_photos(folder)
    files = {
        "train": photos.training,
        "calibration": photos.calibration,
        "validation": photos.validation,
        "test": photos.test,
    }
    splits = {name: Files(files[name]) for name in SPLITS}
    return SelfLabelled(folder.name or str(folder), splits, photos.fingerprint, size, tasks, labels, of)
