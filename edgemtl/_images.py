"""How an image becomes a network's input, everywhere the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["IMAGE_MEAN", "IMAGE_STD", "normalize"]

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)


def normalize(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, H, W, 3) bytes to (N, 3, H, W) float32: scaled to 0..1, then ImageNet's mean and deviation."""
    mean, std = np.array(IMAGE_MEAN, np.float32), np.array(IMAGE_STD, np.float32)
    scaled = ((images.astype(np.float32) / np.float32(255) - mean) / std).astype(np.float32, copy=False)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
