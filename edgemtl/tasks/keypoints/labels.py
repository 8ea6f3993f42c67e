"""Tables of keypoints: two columns a point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from edgemtl.tasks.labels import Names, TableSpec, Target, parse_number

__all__ = ["KeypointsSpec"]


class KeypointsSpec(TableSpec):
    """A row an image: of each of `points` the columns POINT_x and POINT_y, in pixels; empty where it is not seen."""

    located: ClassVar[bool] = True

    points: Annotated[Names, Field(min_length=1)]

    @property
    def class_names(self) -> Sequence[str]:
        """See `TaskSpec.class_names`."""
        return self.points

    @property
    def counted(self) -> Sequence[str]:
        """Points are no classes."""
        return ()

    @property
    def label_columns(self) -> Sequence[str]:
        """See `TableSpec.label_columns`."""
        return [f"{point}_{axis}" for point in self.points for axis in "xy"]

    def parse(self, rows: Sequence[Sequence[str]]) -> Target:
        """See `TableSpec.parse`."""
        points, mask = np.zeros((len(self.points), 2), np.float32), np.zeros(len(self.points), np.bool_)
        for cells in rows:
            for number in range(len(self.points)):
                pair = cells[2 * number : 2 * number + 2]
                if any(pair):
                    points[number], mask[number] = [parse_number(cell) for cell in pair], True
        return points, mask
