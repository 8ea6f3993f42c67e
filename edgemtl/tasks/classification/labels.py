"""Tables of classes: a column with a name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from edgemtl.errors import unknown_name
from edgemtl.files.names import nfc
from edgemtl.tasks.labels import Names, TableSpec, Target

__all__ = ["ClassificationSpec"]


class ClassificationSpec(TableSpec):
    """The class of the whole image, by its name in `column`."""

    column: str
    classes: Annotated[Names, Field(min_length=2)]

    @property
    def class_names(self) -> Sequence[str]:
        """See `TaskSpec.class_names`."""
        return self.classes

    @property
    def label_columns(self) -> Sequence[str]:
        """See `TableSpec.label_columns`."""
        return [self.column]

    def parse(self, rows: Sequence[Sequence[str]]) -> Target:
        """See `TableSpec.parse`."""
        name = rows[0][0] if rows else ""
        if not name:
            return np.asarray(0, np.int64), np.asarray(False)
        classes = [nfc(each) for each in self.classes]
        if name not in classes:
            raise unknown_name("class", name, classes)
        return np.asarray(classes.index(name), np.int64), np.asarray(True)
