"""Label files of segmentation: class ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from edgemtl.errors import UserError
from edgemtl.tasks.labels import Array, FileSpec, Header, Names, Target, list_values, refuse_header

__all__ = ["SegmentationSpec"]


class SegmentationSpec(FileSpec):
    """Class ids: the first class is `first`, the others follow; `ignore` marks pixels without a class."""

    classes: Annotated[Names, Field(min_length=2)]
    first: int = Field(0, ge=0)
    ignore: int | None = 255

    @model_validator(mode="after")
    def _apart(self) -> SegmentationSpec:
        if self.ignore is not None and self.first <= self.ignore < self.first + len(self.classes):
            name = self.classes[self.ignore - self.first]
            raise ValueError(f"ignore: {self.ignore} is also the value of the class {name!r}: change ignore or first")
        return self

    @property
    def class_names(self) -> Sequence[str]:
        """See `TaskSpec.class_names`."""
        return self.classes

    def ignored_value(self) -> str:
        """See `TaskSpec.ignored_value`."""
        return str(self.ignore)

    def single_class_remedy(self, ignored: bool) -> str:
        """See `TaskSpec.single_class_remedy`."""
        if not ignored:
            return super().single_class_remedy(ignored)
        return "give each class an id of its own and `ignore` another value; the kind saliency takes masks of 0 and 255"

    def check_header(self, header: Header, npy: bool) -> None:
        """See `FileSpec.check_header`."""
        if header.channels != 1 or header.dtype[0] not in "uib":
            needed = "one channel of whole numbers (8 or 16 bits) with class ids; colours must be turned into ids"
            raise refuse_header(header, needed)

    def decode(self, array: Array) -> Target:
        """See `FileSpec.decode`."""
        ids = array.astype(np.int64)
        mask = np.ones(ids.shape, np.bool_) if self.ignore is None else ids != self.ignore
        ids = np.where(mask, ids - self.first, 0)
        bad = (ids < 0) | (ids >= len(self.classes))
        if bad.any():
            last = self.first + len(self.classes) - 1
            ignored = "" if self.ignore is None else f" and {self.ignore} (ignore)"
            raise UserError(
                f"holds {list_values(array[bad])}: allowed are {self.first} to {last}{ignored}; "
                "name the missing classes, or set `ignore` or `first`"
            )
        return ids, mask
