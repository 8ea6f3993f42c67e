"""Colours of pictures: distinct ones for classes, a rainbow with even steps for quantities."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

__all__ = ["as_bytes", "class_colors", "ember", "heat", "rainbow"]

# Hues of neighbours differ, and so does their lightness: the first ones also read without colour vision.
_CLASS_COLORS = (
    (58, 123, 213), (224, 138, 30), (42, 154, 107), (164, 80, 184), (208, 71, 90), (19, 138, 158), (196, 178, 52),
    (140, 111, 62), (120, 132, 148), (236, 148, 176), (108, 196, 220), (150, 200, 92), (92, 72, 160), (176, 92, 44),
)  # fmt: skip
_RAINBOW = (
    (46, 30, 98), (52, 98, 204), (44, 166, 216), (66, 206, 150), (166, 222, 82),
    (246, 204, 66), (244, 130, 48), (204, 54, 38), (116, 16, 32),
)  # fmt: skip
_EMBER = ((40, 30, 30), (196, 92, 30), (255, 196, 64), (255, 244, 206))
_HEAT = ((10, 8, 30), (84, 20, 110), (190, 50, 88), (248, 128, 52), (252, 240, 168))


def class_colors(count: int) -> NDArray[np.uint8]:
    """(count, 3) distinct colours; beyond those chosen by hand, hues by the golden angle."""
    more = [
        tuple(round(255 * part) for part in colorsys.hsv_to_rgb((0.11 + index * 0.618034) % 1, 0.62, 0.9))
        for index in range(count - len(_CLASS_COLORS))
    ]
    return np.array([*_CLASS_COLORS, *more][:count], np.uint8).reshape(-1, 3)


def rainbow(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Colours (..., 3) of values from 0 (dark blue) to 1 (dark red); values outside are clipped."""
    return _between(values, _RAINBOW)


def heat(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Colours (..., 3) of values from 0 (near black) to 1 (pale yellow); lightness rises throughout."""
    return _between(values, _HEAT)


def ember(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Colours (..., 3) of values from 0 (dark) to 1 (bright amber): for thin bright things on a dimmed image."""
    return _between(values, _EMBER)


def _between(values: NDArray[np.floating], anchors: tuple[tuple[int, int, int], ...]) -> NDArray[np.uint8]:
    table = np.asarray(anchors, np.float64)
    position = np.clip(np.nan_to_num(np.asarray(values, np.float64)), 0, 1) * (len(table) - 1)
    low = np.minimum(position.astype(int), len(table) - 2)
    part = (position - low)[..., None]
    return as_bytes(table[low] * (1 - part) + table[low + 1] * part)


def as_bytes(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Values from 0 to 255 as whole bytes, rounded."""
    rounded: NDArray[np.uint8] = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    return rounded
