"""Tables of numbers: a column a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from edgemtl.tasks.labels import Names, TableSpec, Target, parse_number

__all__ = ["RegressionSpec"]


class RegressionSpec(TableSpec):
    """Numbers of the whole image, one per column."""

    measured: ClassVar[bool] = True

    columns: Annotated[Names, Field(min_length=1)]

    @property
    def channels(self) -> int | None:
        """See `TaskSpec.channels`."""
        return len(self.columns)

    @property
    def label_columns(self) -> Sequence[str]:
        """See `TableSpec.label_columns`."""
        return self.columns

    def parse(self, rows: Sequence[Sequence[str]]) -> Target:
        """See `TableSpec.parse`."""
        cells = rows[0] if rows else []
        if not cells or not all(cells):
            return np.zeros(len(self.columns), np.float32), np.asarray(False)
        return np.array([parse_number(cell) for cell in cells], np.float32), np.asarray(True)
