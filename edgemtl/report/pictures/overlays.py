"""How each kind of task is drawn over its image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from edgemtl.errors import UserError
from edgemtl.report.drawing.canvas import written
from edgemtl.report.drawing.colors import as_bytes, class_colors, ember, heat, rainbow
from edgemtl.tasks import Task

__all__ = ["Array", "Picture", "Range", "overlay", "plain", "robust_range"]

Picture = NDArray[np.uint8]
Array = NDArray[np.generic]
Range = tuple[float, float]
_HOLE = (205, 210, 216)
_TOP = 3


def overlay(
    task: Task, value: Array, image: Picture, *, mask: Array | None = None, limits: Range | None = None
) -> Picture:
    """The picture (H, W, 3) of a prediction, or of a truth, at the image's size.

    Predictions come post-processed, as `edgemtl.runtime` gives them: classes (H, W), metres (H, W), normals (H, W, 3)
    or (3, H, W), probabilities (H, W), points (K, 2 or 3), class scores (C,) or a class, values (C,); axes of length 1
    in front are dropped. Pixels outside `mask` (H, W) are grey. `limits` fix the metres at the ends of the colours, so
    that several pictures share them. Raises `UserError` for a shape that the task's kind cannot have.
    """
    drawn = _DRAW[task.kind](task, plain(task, value), image, limits)
    if mask is not None and mask.ndim == 2:
        drawn[~_labels_at(mask.astype(np.uint8), image).astype(bool)] = _HOLE
    return drawn


def plain(task: Task, value: Array) -> Array:
    """The value without leading axes of length 1; normals with their three components last."""
    array = np.asarray(value)
    wanted = {"normals": 3, "classification": 1, "regression": 1, "keypoints": 2}.get(task.kind, 2)
    while array.ndim > wanted and array.shape[0] == 1:
        array = array[0]
    if task.kind == "normals" and array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = np.moveaxis(array, 0, -1)
    fits = array.ndim == wanted or (not task.dense and array.ndim == 0)
    if not fits or (task.kind == "normals" and array.shape[-1] != 3):
        raise UserError(f"task {task.name} ({task.kind}) cannot be drawn from shape {np.asarray(value).shape}")
    return array


def robust_range(values: list[Array]) -> Range:
    """Where all but the outermost 2 % of the finite values lie on either side; never empty."""
    flat = np.concatenate([np.asarray(value, np.float64).ravel() for value in values])
    finite = flat[np.isfinite(flat)]
    low, high = (float(end) for end in np.quantile(finite, (0.02, 0.98))) if finite.size else (0.0, 1.0)
    return (low, high) if high - low > 1e-6 else (low - 0.5, high + 0.5)


def _labels_at(labels: Array, image: Picture) -> Picture:
    """Labels (H, W) of at most 255 at the image's size, none mixed."""
    if labels.shape == image.shape[:2]:
        return labels.astype(np.uint8)
    size = (image.shape[1], image.shape[0])
    return np.asarray(Image.fromarray(labels.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))


def _values_at(values: Array, image: Picture) -> NDArray[np.float64]:
    """Values (H, W) at the image's size, interpolated."""
    resized = np.asarray(values, np.float32)
    if resized.shape != image.shape[:2]:
        size = (image.shape[1], image.shape[0])
        resized = np.asarray(Image.fromarray(resized).resize(size, Image.Resampling.BILINEAR))
    return resized.astype(np.float64)


def _segmentation(task: Task, labels: Array, image: Picture, _: Range | None) -> Picture:
    """Class colours over the image, with a dark line where the class changes."""
    classes = _labels_at(np.clip(labels.astype(np.int64), 0, 255), image).astype(int)
    colors = class_colors(max(task.channels, int(classes.max()) + 1))
    drawn = 0.4 * image + 0.6 * colors[classes]
    border = np.zeros(classes.shape, bool)
    border[:, 1:] |= classes[:, 1:] != classes[:, :-1]
    border[1:] |= classes[1:] != classes[:-1]
    drawn[border] *= 0.45
    return as_bytes(drawn)


def _depth(_: Task, metres: Array, image: Picture, limits: Range | None) -> Picture:
    """Near is warm, far is blue."""
    low, high = limits or robust_range([metres])
    return rainbow(1 - (_values_at(metres, image) - low) / (high - low))


def _normals(_: Task, normals: Array, image: Picture, __: Range | None) -> Picture:
    """Right is red, up is green, towards the camera is blue (the camera looks along +z, its y points down)."""
    turned = np.asarray(normals, np.float64) * (1, -1, -1)
    parts = [_values_at(np.asarray(turned[..., axis]), image) for axis in range(3)]
    return as_bytes(127.5 * (np.stack(parts, axis=-1) + 1))


def _edges(_: Task, strength: Array, image: Picture, __: Range | None) -> Picture:
    """The image dimmed and grey, edges bright in proportion to their probability."""
    alpha = np.clip(_values_at(strength, image), 0, 1)
    grey = 0.32 * image.mean(axis=2)[..., None]
    return as_bytes(grey * (1 - alpha[..., None]) + ember(alpha) * alpha[..., None])


def _saliency(_: Task, strength: Array, image: Picture, __: Range | None) -> Picture:
    """Heat over the image, stronger where more is seen."""
    alpha = np.clip(_values_at(strength, image), 0, 1)
    weight = (0.25 + 0.65 * alpha)[..., None]
    return as_bytes(0.6 * image.mean(axis=2)[..., None] * (1 - weight) + heat(alpha) * weight)


def _keypoints(_: Task, points: Array, image: Picture, __: Range | None) -> Picture:
    """A ring in its own colour at every point (x and y in pixels of the image, then perhaps a score)."""
    picture = Image.fromarray(image)
    pen, radius = ImageDraw.Draw(picture), max(3, image.shape[1] // 60)
    for point, color in zip(np.asarray(points, np.float64), class_colors(len(points)), strict=True):
        if np.isfinite(point).all():
            x, y = float(point[0]), float(point[1])
            red, green, blue = (int(part) for part in color)
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=(red, green, blue), width=2)
    return np.array(picture)


def _classification(task: Task, scores: Array, image: Picture, _: Range | None) -> Picture:
    """The image with its best classes and their scores below; a single class where that is given."""

    def name(index: int) -> str:
        return task.classes[index] if index < len(task.classes) else f"class {index}"

    lines: list[tuple[str, float | None]] = []
    if scores.ndim == 0:
        lines.append((name(int(scores)), None))
    else:
        values = np.asarray(scores, np.float64)
        best = [int(index) for index in np.argsort(-values)[:_TOP]]
        lines += [(f"{values[index]:.2f} {name(index)}", float(np.clip(values[index], 0, 1))) for index in best]
    return _with_text(image, lines)


def _regression(task: Task, values: Array, image: Picture, _: Range | None) -> Picture:
    """The image with its values below."""
    numbers = np.atleast_1d(np.asarray(values, np.float64))
    names = task.classes or tuple("" if len(numbers) == 1 else f"{index}: " for index in range(len(numbers)))
    return _with_text(
        image, [(f"{name} {number:.4g}".strip(), None) for name, number in zip(names, numbers, strict=False)]
    )


def _with_text(image: Picture, lines: list[tuple[str, float | None]]) -> Picture:
    picture = Image.fromarray(image)
    written(picture, lines)
    return np.array(picture)


_DRAW = {
    "segmentation": _segmentation,
    "depth": _depth,
    "normals": _normals,
    "edges": _edges,
    "saliency": _saliency,
    "keypoints": _keypoints,
    "classification": _classification,
    "regression": _regression,
}
