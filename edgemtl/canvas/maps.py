"""Maps of labels and of values brought to an image's size, the range that their colours cover, and text on images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemtl.canvas.layout import written

__all__ = ["Picture", "Range", "labels_at", "robust_range", "values_at", "with_text"]

Picture = NDArray[np.uint8]
Range = tuple[float, float]


def labels_at(labels: NDArray[Any], image: Picture) -> Picture:
    """Labels (H, W) of at most 255 at the size of `image`, none mixed."""
    if labels.shape == image.shape[:2]:
        return labels.astype(np.uint8)
    size = (image.shape[1], image.shape[0])
    return np.asarray(Image.fromarray(labels.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))


def values_at(values: NDArray[Any], image: Picture) -> NDArray[np.float64]:
    """Values (H, W) at the size of `image`, interpolated."""
    resized = np.asarray(values, np.float32)
    if resized.shape != image.shape[:2]:
        size = (image.shape[1], image.shape[0])
        resized = np.asarray(Image.fromarray(resized).resize(size, Image.Resampling.BILINEAR))
    return resized.astype(np.float64)


def robust_range(values: Sequence[NDArray[Any]]) -> Range:
    """Where all but the outermost 2 % of the finite values lie on either side; never empty."""
    flat = np.concatenate([np.asarray(value, np.float64).ravel() for value in values])
    finite = flat[np.isfinite(flat)]
    low, high = (float(end) for end in np.quantile(finite, (0.02, 0.98))) if finite.size else (0.0, 1.0)
    return (low, high) if high - low > 1e-6 else (low - 0.5, high + 0.5)


def with_text(image: Picture, lines: Sequence[tuple[str, float | None]]) -> Picture:
    """A copy of the image with lines of text over its lower edge; a line's share (0 to 1) is a bar behind it."""
    picture = Image.fromarray(image)
    written(picture, lines)
    return np.array(picture)
