"""The source `elpv`: photos of solar cells, whether each is defective and how it was made.

Buerhop-Lutz et al., "A benchmark for visual identification of defective solar cells in electroluminescence imagery"
(2018), Deitsch et al., "Automatic classification of defective photovoltaic module cells in electroluminescence images"
(2019).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.sample import Sample, Samples, Split, require_split
from edgemtl.errors import MissingDependencyError, UserError, naming
from edgemtl.files.images import read_picture, resize_picture
from edgemtl.tasks import Task, make_task

__all__ = ["ELPV_TASKS", "ElpvSource"]

ELPV_TASKS: tuple[Task, ...] = (
    make_task("defect", "classification", classes=("intact", "defective")),
    make_task("type", "classification", classes=("mono", "poly")),
)
_SEED = "edgemtl elpv 1"
_SHARES: tuple[tuple[Split, float], ...] = (("test", 0.25), ("validation", 0.10), ("calibration", 0.05))
_KEPT_BYTES = 256 * 2**20


@dataclass(frozen=True)
class _Cell:
    path: str
    probability: float
    type: str


class ElpvSource:
    """2,624 grey photos (300 x 300) of solar cells, with the tasks defect (2 classes) and type (2 classes).

    A cell is defective where the annotators' probability is above one half. The split is fixed: 25 % test, 10 %
    validation, 5 % calibration, the rest train, each with the same shares of type and probability. Cells of one module
    are in the set without a mark, so they can fall into different splits: scores are on the optimistic side.

    The photos may not be used commercially (CC-BY-NC-SA-4.0): show `license_note` to whoever opens it.
    """

    name = "elpv"
    tasks = ELPV_TASKS
    license_note = (
        "elpv: photos of solar cells by Buerhop-Lutz et al. (2018) under CC-BY-NC-SA-4.0: not for commercial use"
    )

    def __init__(self, size: tuple[int, int]) -> None:
        """`size` is the samples' (height, width). Raises `MissingDependencyError` without the package elpv-dataset."""
        if not all(8 <= side <= 4096 for side in size):
            raise UserError(
                f"elpv cannot be resized to {size[0]} x {size[1]} pixels: height and width go from 8 to 4096"
            )
        self.size = size
        self._folder, text = _locate()
        self._splits = _divide(_read_labels(text))
        self._labels_hash = hashlib.sha256(text.encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """Hash of the label file, the split's seed and the size."""
        return hashlib.sha256(f"{self._labels_hash} {_SEED} {self.size}".encode()).hexdigest()[:16]

    def split(self, name: Split) -> Sequence[Sample]:
        """Samples of one split; raises `UserError` for an unknown split."""
        return _ElpvSplit(self._folder, self._splits[require_split(name)], self.size)


class _ElpvSplit(Samples):
    """One split; resized pictures are kept in memory where the whole split is small enough."""

    def __init__(self, folder: Traversable, cells: Sequence[_Cell], size: tuple[int, int]) -> None:
        self._folder, self._cells, self._size = folder, cells, size
        self._keeps = len(cells) * size[0] * size[1] <= _KEPT_BYTES
        self._kept: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self._cells)

    def read(self, position: int) -> Sample:
        cell, valid = self._cells[position], np.asarray(True)
        targets: dict[str, NDArray[Any]] = {
            "defect": np.asarray(cell.probability > 0.5, np.int64),
            "type": np.asarray(ELPV_TASKS[1].classes.index(cell.type), np.int64),
        }
        image = np.repeat(self._grey(position)[..., None], 3, axis=2)
        return Sample(image, targets, dict.fromkeys(targets, valid))

    def _grey(self, position: int) -> NDArray[np.uint8]:
        if position in self._kept:
            return self._kept[position]
        path = self._cells[position].path
        with naming(f"package elpv-dataset, {path}"), as_file(self._folder.joinpath(path)) as file:
            grey = resize_picture(read_picture(file)[..., 0], self._size)
        if self._keeps:
            self._kept[position] = grey
        return grey


def _locate() -> tuple[Traversable, str]:
    """The package's data folder and the text of its labels."""
    try:
        folder = files("elpv_dataset") / "data"
        return folder, (folder / "labels.csv").read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise MissingDependencyError("elpv-dataset", "elpv", "the data set elpv") from error


def _read_labels(text: str) -> list[_Cell]:
    """Lines of "path probability type"; raises `UserError` where the file is another one."""
    cells = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            path, probability, kind = line.split()
            cells.append(_Cell(path, float(probability), kind))
        except ValueError as error:
            raise UserError(
                f"labels.csv of the package elpv-dataset, line {number}, cannot be read: install it again"
            ) from error
        if kind not in ELPV_TASKS[1].classes:
            raise UserError(
                f"labels.csv of the package elpv-dataset, line {number}: the type {kind!r} is unknown: install it again"
            )
    return cells


def _divide(cells: Sequence[_Cell]) -> dict[Split, list[_Cell]]:
    """The fixed split: inside every type and probability, cells in the order of their hashes are shared out."""
    strata: dict[tuple[str, float], list[_Cell]] = defaultdict(list)
    for cell in cells:
        strata[cell.type, cell.probability].append(cell)
    splits: dict[Split, list[_Cell]] = {"train": [], "calibration": [], "validation": [], "test": []}
    for members in strata.values():
        rest = sorted(members, key=lambda cell: hashlib.sha256(f"{_SEED} {cell.path}".encode()).digest())
        for split, share in _SHARES:
            count = round(share * len(members))
            splits[split] += rest[:count]
            rest = rest[count:]
        splits["train"] += rest
    return {split: sorted(members, key=lambda cell: cell.path) for split, members in splits.items()}
