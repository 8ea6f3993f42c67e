"""The kind saliency."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from edgemtl.canvas import Picture, Range, as_bytes, heat, values_at
from edgemtl.tasks.binary.kind import BinaryMap
from edgemtl.tasks.kind import Array
from edgemtl.tasks.task import Metric, Task

__all__ = ["Saliency"]


@dataclass(frozen=True)
class Saliency(BinaryMap):
    """Whether a pixel belongs to what draws the eye."""

    name: ClassVar[str] = "saliency"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("max_f", True, ratio="best_f"),)
    colors: ClassVar[Callable[[NDArray[np.float64]], Picture]] = heat

    def draw(
        self, task: Task, prediction: Array, image: Picture, *, scale: float = 1.0, limits: Range | None = None
    ) -> Picture:
        """Heat over the image, stronger where more is seen."""
        alpha = np.clip(values_at(prediction, image), 0, 1)
        weight = (0.25 + 0.65 * alpha)[..., None]
        return as_bytes(0.6 * image.mean(axis=2)[..., None] * (1 - weight) + heat(alpha) * weight)
