"""The kind keypoints: heat maps (N, K, H, W); labels are points, float32 (K, 2), x and y in pixels, with a mask (K,).

A pixel's middle is a whole number, as where a heat map peaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image, ImageDraw

from edgemtl.canvas import Picture, Range, class_colors
from edgemtl.errors import UserError
from edgemtl.tasks.keypoints.labels import KeypointsSpec
from edgemtl.tasks.kind import Array, GraphBuilder, Kind, Postprocess, Raw, Summary, only
from edgemtl.tasks.labels import Target, TaskSpec
from edgemtl.tasks.task import Metric, Output, Task
from edgemtl.tasks.view import View, resize_points

if TYPE_CHECKING:
    from edgemtl.tasks.learning import Learning

__all__ = ["Keypoints"]

_FLOAT = 1  # as ONNX numbers its types


@dataclass(frozen=True)
class Keypoints(Kind):
    """Positions of several points, which `Task.classes` may name."""

    name: ClassVar[str] = "keypoints"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("pck", True, power=1),)
    loss: ClassVar[str] = "heatmap_mse"
    postprocess: ClassVar[Postprocess] = Postprocess(
        "peaks", "of each channel the position of the largest value, and the value", "x and y in pixels, value"
    )
    labels: ClassVar[type[TaskSpec] | None] = KeypointsSpec

    def outputs(self, task: Task) -> tuple[Output, ...]:
        """One heat map a point."""
        return (Output("heatmaps", task.channels, dense=True, unit="heatmap values"),)

    def missing(self, task: Task, image_size: tuple[int, int]) -> Target:
        """See `Kind.missing`."""
        return np.zeros((task.channels, 2), np.float32), np.zeros(task.channels, np.bool_)

    def resize(self, target: Target, image_size: tuple[int, int], size: tuple[int, int]) -> Target:
        """See `Kind.resize`."""
        return resize_points(target[0], image_size, size), target[1]

    def augment(self, task: Task, target: Target, view: View) -> Target:
        """Points move with the image; a mirror swaps those that are called alike but for left and right."""
        points, mask = view.move(target[0]), target[1]
        if view.mirror:
            order = _mirrored(task)
            points, mask = points[order], mask[order]
        mask = mask & view.shows(points)
        return np.where(mask[:, None], points, np.float32(0)), mask

    def decode(self, task: Task, outputs: Raw, image_size: tuple[int, int]) -> Array:
        """Each point's x and y in pixels of the image, and the value of its peak: (K, 3)."""
        maps = only(outputs)[0]
        flat = maps.reshape(len(maps), -1)
        best = flat.argmax(axis=1)
        positions = np.stack([best % maps.shape[2], best // maps.shape[2]], axis=1)
        values = flat[np.arange(len(flat)), best]
        return np.concatenate([resize_points(positions, maps.shape[1:], image_size), values[:, None]], axis=1)

    def pseudo_label(self, task: Task, outputs: Raw, image_size: tuple[int, int]) -> Target:
        """See `Kind.pseudo_label`."""
        finite = {name: np.nan_to_num(value) for name, value in outputs.items()}
        mask = np.isfinite(only(outputs)[0]).all((1, 2))
        return self.decode(task, finite, image_size)[:, :2], np.asarray(mask)

    def as_prediction(self, task: Task, value: Any) -> Array:
        """Points (K, 2), or (K, 3) with the values of their peaks."""
        array = np.asarray(value)
        while array.ndim > 2 and array.shape[0] == 1:
            array = array[0]
        if array.ndim != 2 or array.shape[1] < 2:
            raise UserError(f"task {task.name} ({self.name}) cannot be drawn from shape {np.asarray(value).shape}")
        return array

    def draw(
        self, task: Task, prediction: Array, image: Picture, *, scale: float = 1.0, limits: Range | None = None
    ) -> Picture:
        """A ring in its own colour at every point."""
        picture = Image.fromarray(image)
        pen, radius = ImageDraw.Draw(picture), max(3, image.shape[1] // 60)
        for point, color in zip(np.asarray(prediction, np.float64), class_colors(len(prediction)), strict=True):
            if np.isfinite(point).all():
                x, y = scale * float(point[0]), scale * float(point[1])
                red, green, blue = (int(part) for part in color)
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=(red, green, blue), width=2)
        return np.array(picture)

    def summarize(self, task: Task, prediction: Array) -> Summary:
        """The points themselves."""
        return Summary({"values": prediction.tolist()})

    def append_decoding(self, task: Task, graph: GraphBuilder, raw: Mapping[str, str]) -> Mapping[str, str]:
        """Of each channel the column, the row and the value of the maximum: (1, K, 3)."""
        maps = only(raw)
        count, width = graph.shape(maps)[1], graph.shape(maps)[3]
        flat = graph.node("Reshape", [maps, graph.constant("flat", np.array([1, count, -1], np.int64))], "places")
        best = graph.node("ArgMax", [flat], "best", axis=2, keepdims=1)
        divisor = graph.constant("width", np.int64(width))
        column, row = (graph.node(op, [best, divisor], label) for op, label in (("Mod", "column"), ("Div", "row")))
        x, y = (graph.node("Cast", [position], label, to=_FLOAT) for position, label in ((column, "x"), (row, "y")))
        value = graph.node("GatherElements", [flat, best], "value", axis=2)
        return {next(iter(raw)): graph.node("Concat", [x, y, value], "peaks", axis=2)}

    def learning(self) -> Learning:
        """See `Kind.learning`."""
        from edgemtl.tasks.keypoints.learning import LEARNING

        return LEARNING


def _mirrored(task: Task) -> list[int]:
    """The counterpart of each point in a mirrored image."""
    numbers = {name: number for number, name in enumerate(task.classes)}
    return [numbers.get(_other_side(name), number) for name, number in numbers.items()] or [*range(task.channels)]


def _other_side(name: str) -> str:
    return name.replace("left", "\0").replace("right", "left").replace("\0", "right")
