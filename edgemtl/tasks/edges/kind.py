"""The kind edges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgemtl.canvas import Picture, Range, as_bytes, ember, values_at
from edgemtl.tasks.binary.kind import BinaryMap
from edgemtl.tasks.kind import Array
from edgemtl.tasks.labels import Target
from edgemtl.tasks.task import Metric, Task

__all__ = ["Edges"]


@dataclass(frozen=True)
class Edges(BinaryMap):
    """Whether a contour passes through a pixel; contours are a pixel thin."""

    name: ClassVar[str] = "edges"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("ods_f", True, ratio="best_f"),)
    colors: ClassVar[Callable[[NDArray[np.float64]], Picture]] = ember

    def resize(self, target: Target, image_size: tuple[int, int], size: tuple[int, int]) -> Target:
        """A shrunk pixel is an edge where it covers one: picking every n-th pixel would leave dots."""
        if size == image_size or size[0] > image_size[0] or size[1] > image_size[1]:
            return super().resize(target, image_size, size)
        label, mask = target
        return _any_of(label * mask, size), _any_of(mask, size)

    def draw(
        self, task: Task, prediction: Array, image: Picture, *, scale: float = 1.0, limits: Range | None = None
    ) -> Picture:
        """The image dimmed and grey, edges bright in proportion to their probability."""
        alpha = np.clip(values_at(prediction, image), 0, 1)
        grey = 0.32 * image.mean(axis=2)[..., None]
        return as_bytes(grey * (1 - alpha[..., None]) + ember(alpha) * alpha[..., None])


def _any_of(values: Array, size: tuple[int, int]) -> Array:
    """The largest of the pixels that each of the fewer pixels covers."""
    for axis, count in enumerate(size):
        starts = np.arange(count) * values.shape[axis] // count
        values = np.maximum.reduceat(values, starts, axis=axis)
    return values
