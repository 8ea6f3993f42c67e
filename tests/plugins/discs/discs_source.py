"""A data set of another package: discs before a wall, drawn from a seed, with the depth and whether one is near."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edgemtl.data import Sample, Samples, Split, require_split
from edgemtl.tasks import Task, make_task

COUNTS: dict[Split, int] = {"train": 16, "calibration": 4, "validation": 4, "test": 4}
SEEDS: dict[Split, int] = {"train": 0, "calibration": 1000, "validation": 2000, "test": 3000}
WALL_M = 5.0


@dataclass(frozen=True)
class Discs:
    """The source; every image has one disc."""

    size: tuple[int, int]
    name: str = "discs"
    fingerprint: str = "discs/1"
    license_note: str = ""
    tasks: ClassVar[tuple[Task, ...]] = (
        make_task("depth", "depth"),
        make_task("near", "classification", classes=("no", "yes")),
    )

    def split(self, name: Split) -> _Discs:
        """Samples of one split."""
        split = require_split(name)
        return _Discs(self.size, SEEDS[split], COUNTS[split])


@dataclass(frozen=True)
class _Discs(Samples):
    size: tuple[int, int]
    first_seed: int
    count: int

    def __len__(self) -> int:
        return self.count

    def read(self, position: int) -> Sample:
        rng = np.random.default_rng(self.first_seed + position)
        height, width = self.size
        rows, columns = np.mgrid[:height, :width]
        radius, distance_m = height / 4, rng.uniform(1, 4)
        inside = (
            np.hypot(rows - rng.uniform(radius, height - radius), columns - rng.uniform(radius, width - radius))
            < radius
        )
        depth = np.where(inside, distance_m, WALL_M).astype(np.float32)
        image = (255 / depth)[..., None].repeat(3, 2).astype(np.uint8)
        valid = np.ones(self.size, bool)
        return Sample(
            image, {"depth": depth, "near": np.array(int(distance_m < 2))}, {"depth": valid, "near": np.array(True)}
        )
