"""How a task is drawn over its image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.canvas import Picture, Range, labels_at
from edgemtl.tasks import Task, kind_of

__all__ = ["overlay"]

_HOLE = (205, 210, 216)


def overlay(
    task: Task,
    value: Any,
    image: Picture,
    *,
    mask: NDArray[np.generic] | None = None,
    scale: float = 1.0,
    limits: Range | None = None,
) -> Picture:
    """The picture (H, W, 3) of a prediction, or of a truth, at the image's size.

    Predictions come as the task's kind decodes them, truths as samples hold them; axes of length 1 in front are
    dropped. Pixels outside `mask` (H, W) are grey, points outside `mask` (K,) are not drawn. Coordinates times `scale`
    are pixels of `image`. `limits` fix the values at the ends of the colours, so that several pictures share them.
    Raises `UserError` for a shape that the task's kind cannot have.
    """
    kind = kind_of(task)
    prediction = kind.as_prediction(task, value)
    if mask is not None and mask.ndim == 1:
        prediction = np.where(mask.astype(bool)[:, None], prediction, np.nan)
    drawn = kind.draw(task, prediction, image, scale=scale, limits=limits)
    if mask is not None and mask.ndim == 2:
        drawn[~labels_at(mask.astype(np.uint8), image).astype(bool)] = _HOLE
    return drawn
