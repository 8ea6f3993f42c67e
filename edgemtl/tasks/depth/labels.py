"""Label files of depth: whole numbers of a scale, or floats."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from edgemtl.errors import UserError
from edgemtl.tasks.labels import Array, FileSpec, Header, Target, list_values, refuse_header

__all__ = ["FILL_M", "DepthSpec"]

FILL_M = 1.0
"""Fill value where nothing was measured: harmless to a logarithm."""

_FAR_M = 1000.0
_LARGEST = (2**16 - 1, 2**31 - 1, 2**32 - 1)


class DepthSpec(FileSpec):
    """Depth: a value times `scale` is metres.

    Not valid are the value `invalid`, zero, what is not finite, and what lies beyond `max_m` metres.
    """

    measured: ClassVar[bool] = True

    scale: float | None = Field(None, gt=0)
    invalid: float = 0
    max_m: float | None = Field(None, gt=0)

    def check_header(self, header: Header, npy: bool) -> None:
        """See `FileSpec.check_header`."""
        number = header.dtype[0]
        if header.channels != 1 or number not in "uif":
            raise refuse_header(header, "one channel of whole numbers (with `scale`) or of float metres")
        if header.dtype in ("u1", "i1"):
            raise UserError("holds depth in 8 bits, 256 steps: 16 bits are needed, or float metres in a .npy file")
        if number in "ui" and self.scale is None:
            raise UserError("holds whole numbers: say how many metres one is, with `scale` (0.001 for millimetres)")

    def decode(self, array: Array) -> Target:
        """See `FileSpec.decode`."""
        raw = array.astype(np.float64)
        metres = raw * (1.0 if self.scale is None else self.scale)
        mask = np.isfinite(metres) & (raw != self.invalid) & (metres != 0)
        if self.max_m is not None:
            mask &= metres <= self.max_m
        bad = mask & ((metres < 0) | (metres > _FAR_M if self.max_m is None else False))
        if bad.any():
            scale = "not set" if self.scale is None else f"{self.scale:g}"
            raise UserError(
                f"holds {list_values(array[bad])}, {_list_metres(metres[bad])} with `scale` {scale}: "
                f"allowed is above 0 to {_FAR_M:g} m; set `scale`, `invalid` or `max_m`"
            )
        return np.where(mask, metres, FILL_M).astype(np.float32), mask

    def doubts(self, array: Array, target: Target) -> str:
        """Depth that is the largest number of its type, or 65.535 m: written where nothing was measured."""
        metres = array * (1.0 if self.scale is None else self.scale)
        suspect = target[1] & (np.isin(array, _LARGEST) | np.isclose(metres, 65.535, rtol=1e-5))
        if not suspect.any():
            return ""
        return (
            f"holds {list_values(array[suspect])}, {_list_metres(metres[suspect])}, which many sensors write where "
            f"they measured nothing: set `invalid: {array[suspect].flat[0]:g}`, or `max_m`"
        )


def _list_metres(metres: Array) -> str:
    low, high = float(metres.min()), float(metres.max())
    return f"{low:g} m" if low == high else f"{low:g} to {high:g} m"
