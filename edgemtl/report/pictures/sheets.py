"""Predictions as pictures that a person can judge: one with its legend, a sheet with truth above it, or frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from edgemtl.errors import UserError
from edgemtl.report.drawing.canvas import PAPER, Color, label, scale_bar, scaled, side_by_side, stacked, swatches, tag
from edgemtl.report.drawing.colors import class_colors, ember, heat, rainbow
from edgemtl.report.pictures.overlays import Array, Picture, Range, overlay, plain, robust_range
from edgemtl.tasks import Task

__all__ = ["Example", "animation", "contact_sheet", "draw_prediction"]

_GAP = 10
WIDTHS = (320, 1280)


@dataclass(frozen=True)
class Example:
    """One image (H, W, 3) of bytes, what the net says of it by task, and where known the truth with validity masks.

    A `caption` is written into the image where it stands on a sheet.
    """

    image: Picture
    predictions: Mapping[str, Array]
    truths: Mapping[str, Array] = field(default_factory=dict)
    masks: Mapping[str, Array] = field(default_factory=dict)
    caption: str = ""


def draw_prediction(task: Task, prediction: Array, image: Picture) -> Image.Image:
    """One task's post-processed prediction over its image (see `overlay`), with a legend below it.

    A picture narrower than 320 or wider than 1280 pixels is brought to that width, so that its text can be read. Points
    of keypoints are in pixels of `image`.
    """
    value = plain(task, prediction)
    width = min(max(image.shape[1], WIDTHS[0]), WIDTHS[1])
    photo = np.array(scaled(Image.fromarray(image), width))
    if task.kind == "keypoints":
        value = np.concatenate([value[:, :2] * (width / image.shape[1]), value[:, 2:]], axis=1)
    limits = robust_range([value]) if task.kind == "depth" else None
    drawn = Image.fromarray(overlay(task, value, photo, limits=limits))
    return stacked([drawn, *_legend(task, [value], width, limits)])


def contact_sheet(tasks: Sequence[Task], examples: Sequence[Example], *, cell_width: int = 256) -> Image.Image:
    """Rows of images, a column for each task; where truth is given it stands above the prediction, in equal colours.

    Legends stand under their columns. Raises `UserError` for no image or no task, and for shapes that do not fit.
    """
    return _sheet(tasks, examples, examples, cell_width)


def animation(tasks: Sequence[Task], examples: Sequence[Example], *, cell_width: int = 256) -> list[Image.Image]:
    """The rows of such a sheet, each as a frame: with the legends and colours of them all, so that frames compare."""
    return [_sheet(tasks, [each], examples, cell_width) for each in examples]


def _sheet(tasks: Sequence[Task], shown: Sequence[Example], labelled: Sequence[Example], width: int) -> Image.Image:
    """The sheet of some examples, in colours that hold for all that are known."""
    if not shown or not tasks:
        raise UserError(f"a sheet of {len(shown)} images and {len(tasks)} tasks is empty: give at least one of each")
    photos = stacked([label("image", width), *(_photo(each, width) for each in shown)], _GAP)
    return side_by_side([photos, *(_column(task, shown, labelled, width) for task in tasks)], _GAP, margin=14)


def _photo(example: Example, width: int) -> Image.Image:
    picture = scaled(Image.fromarray(example.image), width).copy()
    if example.caption:
        tag(picture, example.caption)
    return stacked([picture, Image.new("RGB", picture.size, PAPER)], 3) if example.truths else picture


def _column(task: Task, shown: Sequence[Example], labelled: Sequence[Example], width: int) -> Image.Image:
    values = [value for each in labelled for value in _values(task, each)]
    limits = robust_range(values) if values and task.kind == "depth" else None
    rows = [label(task.name, width)]
    for example in shown:
        cell = _cell(task, example.predictions.get(task.name), example, width, limits)
        if not example.truths:
            rows.append(cell)
            continue
        true = _cell(task, example.truths.get(task.name), example, width, limits, example.masks.get(task.name))
        tag(true, "truth")
        tag(cell, "prediction")
        rows.append(stacked([true, cell], 3))
    return stacked([*rows, *(_legend(task, values, width, limits) if values else [])], _GAP)


def _values(task: Task, example: Example) -> list[Array]:
    """Prediction and truth of a task; what the mask leaves out of a truth does not count for legends."""
    arrays = [plain(task, example.predictions[task.name])] if task.name in example.predictions else []
    if task.name in example.truths:
        truth, mask = plain(task, example.truths[task.name]), example.masks.get(task.name)
        arrays.append(truth if mask is None or mask.shape != truth.shape else truth[mask.astype(bool)])
    return arrays


def _cell(
    task: Task, value: Array | None, example: Example, width: int, limits: Range | None, mask: Array | None = None
) -> Image.Image:
    """A drawn value at the cell's width, or an empty cell."""
    height, full = example.image.shape[:2]
    if value is None:
        return Image.new("RGB", (width, max(1, round(height * width / full))), (238, 240, 243))
    if task.dense:
        return scaled(Image.fromarray(overlay(task, value, example.image, mask=mask, limits=limits)), width)
    photo = scaled(Image.fromarray(example.image), width)  # text keeps its size
    return Image.fromarray(overlay(task, value, np.array(photo)))


def _legend(task: Task, values: Sequence[Array], width: int, limits: Range | None) -> list[Image.Image]:
    """Legend of the colours; None for a task whose prediction is text."""
    if task.kind == "segmentation":
        return [_classes(task, values, width)]
    if task.kind == "depth" and limits is not None:
        marks = [f"{limits[0] + share * (limits[1] - limits[0]):.1f} m" for share in (0.0, 0.5, 1.0)]
        return [scale_bar(lambda position: rainbow(1 - position), marks, width)]
    if task.kind == "normals":
        return [swatches(["right", "up", "to the camera"], [(255, 128, 128), (128, 255, 128), (128, 128, 255)], width)]
    if task.kind in ("edges", "saliency"):
        return [scale_bar(ember if task.kind == "edges" else heat, ["0", "probability", "1"], width)]
    return []


def _classes(task: Task, values: Sequence[Array], width: int) -> Image.Image:
    """The classes that occur, most frequent first."""
    counts = np.bincount(np.concatenate([np.clip(value.astype(np.int64), 0, 255).ravel() for value in values]))
    present = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index]]
    names = [task.classes[index] if index < len(task.classes) else f"class {index}" for index in present]
    table = class_colors(max(task.channels, len(counts)))
    colors: list[Color] = [(int(red), int(green), int(blue)) for red, green, blue in table[present]]
    return swatches(names, colors, width)
