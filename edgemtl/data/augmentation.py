"""Augmentation that stays right for every kind of target at once.

Zooming by s about the camera's axis, with depth divided by s, is what the same camera with focal length f*s sees of a
world that is s times smaller: points keep their directions, so normals stay as they are. A horizontal flip mirrors the
world in x. Each kind of task moves its labels accordingly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemtl.data.sample import Sample
from edgemtl.errors import UserError
from edgemtl.tasks import Task, View, kind_of

__all__ = ["augment", "flip", "jitter", "zoom"]

_PAD_COLOUR = (124, 116, 104)
_GREY = np.array([0.299, 0.587, 0.114])
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


def augment(
    sample: Sample,
    tasks: Sequence[Task],
    rng: np.random.Generator,
    crop: tuple[int, int],
    scale: tuple[float, float] = (1.0, 1.0),
    flip: bool = True,
    color: bool = True,
) -> Sample:
    """A random zoom, crop, flip and change of colours, the same for the image and every target.

    The image is scaled by s, log-uniform in `scale` (0.1 to 10), and a window of `crop` (height, width) is taken at
    random; where the scaled image is smaller than the window, the rest is grey with masks false. With `flip` it is
    mirrored half of the time; with `color` brightness, contrast, saturation, hue, gamma and noise of the image change a
    little. Raises `UserError` for a crop or a scale outside these ranges.
    """
    low, high = scale
    if not 0.1 <= low <= high <= 10:
        raise UserError(
            f"the scale range {low} to {high} cannot be used: two numbers between 0.1 and 10, the smaller first"
        )
    if min(crop) < 1:
        raise UserError(f"a crop of {crop[0]} x {crop[1]} pixels cannot be used: both sides need at least 1")
    s = math.exp(rng.uniform(math.log(low), math.log(high)))
    height, width = sample.image.shape[:2]
    # Places the window inside the image, or the image inside the window, whichever is larger.
    top, left = rng.uniform(0, 1) * (height - crop[0] / s), rng.uniform(0, 1) * (width - crop[1] / s)
    if s == 1:
        top, left = round(top), round(left)
    mirror = flip and rng.random() < 0.5
    result = zoom(sample, tasks, s, (top, left), crop, mirror)
    return Sample(jitter(result.image, rng), result.targets, result.masks) if color else result


def flip(sample: Sample, tasks: Sequence[Task]) -> Sample:
    """The sample mirrored left to right."""
    height, width = sample.image.shape[:2]
    return zoom(sample, tasks, 1.0, (0, 0), (height, width), mirror=True)


def zoom(
    sample: Sample,
    tasks: Sequence[Task],
    s: float,
    corner: tuple[float, float],
    crop: tuple[int, int],
    mirror: bool = False,
) -> Sample:
    """The window of `crop` pixels of the sample scaled by `s`, whose top left corner is `corner` in source pixels.

    Only the window is touched, so the cost follows the crop. Nothing is valid outside the source.
    """
    height, width = sample.image.shape[:2]
    view = View((height, width), corner, s, crop, mirror)
    image = _resize_window(sample.image, corner, s, crop)
    if mirror:
        image = np.ascontiguousarray(image[:, ::-1])
    targets, masks = dict(sample.targets), dict(sample.masks)
    for task in tasks:
        label = sample.targets[task.name], sample.masks[task.name]
        targets[task.name], masks[task.name] = kind_of(task).augment(task, label, view)
    return Sample(image, targets, masks)


def _resize_window(
    image: NDArray[np.uint8], corner: tuple[float, float], s: float, crop: tuple[int, int]
) -> NDArray[np.uint8]:
    """The window resized with an antialiased triangle filter; grey outside the image."""
    top, left = corner
    bottom, right = top + crop[0] / s, left + crop[1] / s
    height, width = image.shape[:2]
    # A little more than the window, so that the filter sees the same neighbours as on the whole image.
    margin = math.ceil(2 / min(s, 1)) + 1
    y0, x0 = math.floor(top) - margin, math.floor(left) - margin
    y1, x1 = math.ceil(bottom) + margin, math.ceil(right) + margin
    if top < 0 or left < 0 or bottom > height or right > width:
        part = np.empty((y1 - y0, x1 - x0, 3), np.uint8)
        part[:] = _PAD_COLOUR
        ya, yb, xa, xb = max(y0, 0), min(y1, height), max(x0, 0), min(x1, width)
        part[ya - y0 : yb - y0, xa - x0 : xb - x0] = image[ya:yb, xa:xb]
    else:
        y0, x0 = max(y0, 0), max(x0, 0)
        part = image[y0:y1, x0:x1]
    if s == 1 and float(top).is_integer() and float(left).is_integer():
        y, x = int(top) - y0, int(left) - x0
        return np.ascontiguousarray(part[y : y + crop[0], x : x + crop[1]])
    box = (left - x0, top - y0, min(right - x0, part.shape[1]), min(bottom - y0, part.shape[0]))
    resized = Image.fromarray(np.ascontiguousarray(part)).resize((crop[1], crop[0]), Image.Resampling.BILINEAR, box)
    return np.array(resized)


def jitter(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The image with another brightness, contrast, saturation, hue, gamma and sensor noise, each changed a little."""
    gamma, brightness, contrast = np.exp(rng.uniform(-1, 1, 3) * (0.2, 0.25, 0.25))
    saturation, hue, noise = math.exp(rng.uniform(-0.4, 0.4)), rng.uniform(-0.15, 0.15), rng.uniform(0, 4)
    table = (255 * brightness * (np.arange(256) / 255) ** gamma).astype(np.float32)
    pixels: NDArray[np.float32] = table[image].reshape(-1, 3)
    chroma = saturation * np.array([[np.cos(hue), -np.sin(hue)], [np.sin(hue), np.cos(hue)]])
    turn = np.eye(3)
    turn[1:, 1:] = chroma
    matrix = (contrast * _FROM_YIQ @ turn @ _TO_YIQ).T.astype(np.float32)
    middle = np.float32((1 - contrast) * float(pixels.mean(0) @ _GREY))
    pixels = pixels @ matrix + middle
    pixels += np.float32(noise) * rng.standard_normal(pixels.shape, np.float32)
    np.clip(pixels + np.float32(0.5), 0, 255, out=pixels)
    return pixels.astype(np.uint8).reshape(image.shape)
