"""Predictions as pictures that a person can judge: one with its legend, a sheet with truth above it, or frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemtl.canvas import PAPER, Picture, Range, label, scaled, side_by_side, stacked, tag
from edgemtl.errors import UserError
from edgemtl.report.pictures.overlays import overlay
from edgemtl.tasks import Task, kind_of

__all__ = ["Example", "animation", "contact_sheet", "draw_prediction"]

_GAP = 10
WIDTHS = (320, 1280)


@dataclass(frozen=True)
class Example:
    """One image (H, W, 3) of bytes, what the net says of it by task, and where known the truth with validity masks.

    A `caption` is written into the image where it stands on a sheet.
    """

    image: Picture
    predictions: Mapping[str, Any]
    truths: Mapping[str, Any] = field(default_factory=dict)
    masks: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    caption: str = ""


def draw_prediction(task: Task, prediction: Any, image: Picture) -> Image.Image:
    """One task's prediction over its image (see `overlay`), with a legend below it.

    A picture narrower than 320 or wider than 1280 pixels is brought to that width, so that its text can be read.
    Coordinates are in pixels of `image`.
    """
    kind = kind_of(task)
    value = kind.as_prediction(task, prediction)
    width = min(max(image.shape[1], WIDTHS[0]), WIDTHS[1])
    photo = np.array(scaled(Image.fromarray(image), width))
    limits = kind.limits([value])
    drawn = Image.fromarray(overlay(task, value, photo, scale=width / image.shape[1], limits=limits))
    return stacked([drawn, *kind.legend(task, [value], width, limits)])


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
    kind = kind_of(task)
    limits = kind.limits(values)
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
    return stacked([*rows, *(kind.legend(task, values, width, limits) if values else [])], _GAP)


def _values(task: Task, example: Example) -> list[Any]:
    """Prediction and truth of a task; what the mask leaves out of a truth does not count for legends."""
    kind = kind_of(task)
    values = [kind.as_prediction(task, example.predictions[task.name])] if task.name in example.predictions else []
    if task.name in example.truths:
        truth, mask = kind.as_prediction(task, example.truths[task.name]), example.masks.get(task.name)
        if mask is not None and isinstance(truth, np.ndarray) and mask.shape == truth.shape:
            truth = truth[mask.astype(bool)]
        values.append(truth)
    return values


def _cell(
    task: Task, value: Any, example: Example, width: int, limits: Range | None, mask: NDArray[np.generic] | None = None
) -> Image.Image:
    """A drawn value at the cell's width, or an empty cell."""
    height, full = example.image.shape[:2]
    if value is None:
        return Image.new("RGB", (width, max(1, round(height * width / full))), (238, 240, 243))
    if task.dense:
        return scaled(Image.fromarray(overlay(task, value, example.image, mask=mask, limits=limits)), width)
    photo = scaled(Image.fromarray(example.image), width)  # text keeps its size
    return Image.fromarray(overlay(task, value, np.array(photo), scale=width / full))
