"""Label files of edges and saliency: two values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgemtl.errors import UserError
from edgemtl.tasks.labels import Array, FileSpec, Header, Target, list_values, refuse_header

__all__ = ["BinarySpec"]


class BinarySpec(FileSpec):
    """Edges or saliency: 0 and 1, or 0 and 255; with `threshold`, what lies above it. `ignore` marks unknown pixels."""

    threshold: float | None = None
    ignore: int | None = None

    @property
    def counted(self) -> Sequence[str]:
        """See `TaskSpec.counted`."""
        return "0", "1"

    def single_class_remedy(self, ignored: bool) -> str:
        """See `TaskSpec.single_class_remedy`."""
        return "correct `threshold` or the labels"

    def check_header(self, header: Header, npy: bool) -> None:
        """See `FileSpec.check_header`."""
        if header.channels != 1 or header.dtype[0] not in "uibf":
            raise refuse_header(header, "one channel of 0 and 1, or of 0 and 255")

    def decode(self, array: Array) -> Target:
        """See `FileSpec.decode`."""
        mask = np.ones(array.shape, np.bool_) if self.ignore is None else array != self.ignore
        if array.dtype.kind == "f":
            mask &= np.isfinite(array)
        values = np.where(mask, array, 0)
        if self.threshold is not None:
            return (values > self.threshold).astype(np.float32), mask
        top = 255 if values.max() > 1 else 1
        bad = (values != 0) & (values != top)
        if bad.any():
            raise UserError(
                f"holds {list_values(array[bad])}: allowed are 0 and 1, or 0 and 255; set `threshold` or `ignore`"
            )
        return (values > 0).astype(np.float32), mask
