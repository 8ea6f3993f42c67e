"""The view that an augmentation takes of an image: a window, scaled and perhaps mirrored, which labels follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["View", "resize_points"]

Array = NDArray[Any]


@dataclass(frozen=True)
class View:
    """The window of `size` (H, W) pixels of an image (`source`, (H, W)) scaled by `scale`.

    Its top left corner is `corner` (row, column) in pixels of the source, and may lie outside it. With `mirror`, the
    window is mirrored left to right.
    """

    source: tuple[int, int]
    corner: tuple[float, float]
    scale: float
    size: tuple[int, int]
    mirror: bool = False

    @cached_property
    def inside(self) -> NDArray[np.bool_] | None:
        """Which pixels (H, W) of the window lie in the source; None means all of them."""
        rows, columns = self._rows[1], self._columns[1]
        return None if rows.all() and columns.all() else rows[:, None] & columns

    def pick(self, values: Array) -> Array:
        """The window of a map (H, W, ...) of the source, every pixel by the nearest one; clamped outside the source."""
        return np.asarray(values.take(self._rows[0], 0).take(self._columns[0], 1))

    def move(self, points: Array) -> Array:
        """Points (..., 2), x and y in pixels of the source (a pixel's middle is a whole number), in the window."""
        offset = np.array(self.corner[::-1])
        moved = (np.asarray(points, np.float64) + 0.5 - offset) * self.scale - 0.5
        if self.mirror:
            moved[..., 0] = self.size[1] - 1 - moved[..., 0]
        return np.asarray(moved, np.float32)

    def shows(self, points: Array) -> NDArray[np.bool_]:
        """Which points (..., 2) of the window lie on one of its pixels."""
        limit = np.array(self.size[::-1]) - 0.5
        return np.asarray(((points >= -0.5) & (points < limit)).all(-1))

    @cached_property
    def _rows(self) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        return self._nearest(0)

    @cached_property
    def _columns(self) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        index, inside = self._nearest(1)
        return (index[::-1], inside[::-1]) if self.mirror else (index, inside)

    def _nearest(self, axis: int) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Source indices of the window's pixels along an axis, clamped, and whether they lie in the source."""
        limit, positions = self.source[axis], np.arange(self.size[axis]) + 0.5
        index = np.floor(self.corner[axis] + positions / self.scale).astype(np.intp)
        return index.clip(0, limit - 1), (index >= 0) & (index < limit)


def resize_points(points: Array, before: Sequence[int], after: Sequence[int]) -> Array:
    """Points (..., 2), x and y in pixels of an image of size `before` (H, W), in pixels of it resized to `after`."""
    factor = np.array([after[1] / before[1], after[0] / before[0]])
    return np.asarray((np.asarray(points, np.float64) + 0.5) * factor - 0.5, np.float32)
