"""Tables of boxes: a row a box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from edgemtl.errors import unknown_name
from edgemtl.tasks import Names, TableSpec, Target, parse_number

__all__ = ["CountingSpec"]


class CountingSpec(TableSpec):
    """The columns class, x0, y0, x1, y1; an image without any object has one row whose cells are empty."""

    several: ClassVar[bool] = True
    located: ClassVar[bool] = True

    classes: Annotated[Names, Field(min_length=1)]

    @property
    def class_names(self) -> Sequence[str]:
        """See `TaskSpec.class_names`."""
        return self.classes

    @property
    def counted(self) -> Sequence[str]:
        """Boxes are no class ids."""
        return ()

    @property
    def label_columns(self) -> Sequence[str]:
        """See `TableSpec.label_columns`."""
        return "class", "x0", "y0", "x1", "y1"

    def parse(self, rows: Sequence[Sequence[str]]) -> Target:
        """See `TableSpec.parse`."""
        boxes = [self._box(row) for row in rows if any(row)]
        return np.array(boxes, np.float32).reshape(-1, 5), np.asarray(bool(rows))

    def _box(self, row: Sequence[str]) -> list[float]:
        name, *corners = row
        if name not in self.classes:
            raise unknown_name("class", name, self.classes)
        return [self.classes.index(name), *map(parse_number, corners)]
