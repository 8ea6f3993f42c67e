"""The kind counting: a map of objects' centres (N, C, H, W) and a number of them (N, C).

Labels are boxes, float32 (M, 5) of any M: class, and x and y of two corners in pixels; the mask () says whether the
image was labelled. A prediction holds `points` (K, 4), each a class, x and y in pixels of the image, and a score, and
the `counts` (C,).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from counting.labels import CountingSpec
from edgemtl.canvas import Picture, Range, class_colors, swatches
from edgemtl.errors import UserError
from edgemtl.tasks import (
    GraphBuilder,
    Kind,
    Metric,
    Output,
    Postprocess,
    Summary,
    Target,
    Task,
    TaskSpec,
    View,
    resize_points,
)

if TYPE_CHECKING:
    from edgemtl.tasks.learning import Learning

__all__ = ["Counting"]

Array = NDArray[Any]
_THRESHOLD = 0.5


@dataclass(frozen=True)
class Counting(Kind):
    """How many objects of each class there are, and where their centres lie."""

    name: ClassVar[str] = "counting"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("count_error", False), Metric("found", True))
    loss: ClassVar[str] = "centre_bce + count_l1"
    postprocess: ClassVar[Postprocess] = Postprocess(
        "centres", "places of the heat map that no neighbour exceeds; counts no less than 0", "centres and counts"
    )
    labels: ClassVar[type[TaskSpec] | None] = CountingSpec

    def outputs(self, task: Task) -> tuple[Output, ...]:
        """Two tensors of different rank."""
        heat = Output("heat", task.channels, dense=True, unit="logits", decoded="probability of a centre")
        return heat, Output("count", task.channels, dense=False, unit="objects", decoded="objects")

    def missing(self, task: Task, image_size: tuple[int, int]) -> Target:
        """No boxes, and nobody who looked for any."""
        return np.zeros((0, 5), np.float32), np.asarray(False)

    def collate(self, targets: Sequence[Array], masks: Sequence[NDArray[np.bool_]]) -> tuple[Any, NDArray[np.bool_]]:
        """The boxes of each image by themselves: their numbers differ."""
        return tuple(targets), np.stack(masks)

    def resize(self, target: Target, image_size: tuple[int, int], size: tuple[int, int]) -> Target:
        """Corners move with the image."""
        boxes, mask = target
        corners = resize_points(boxes[:, 1:].reshape(-1, 2, 2), image_size, size)
        return np.concatenate([boxes[:, :1], corners.reshape(-1, 4)], axis=1), mask

    def augment(self, task: Task, target: Target, view: View) -> Target:
        """Boxes move with the image, and are left out where their centre does not show."""
        boxes, mask = target
        corners = np.sort(view.move(boxes[:, 1:].reshape(-1, 2, 2)), axis=1)
        moved = np.concatenate([boxes[:, :1], corners.reshape(-1, 4)], axis=1)
        return moved[view.shows(corners.mean(1))], mask

    def decode(self, task: Task, outputs: Mapping[str, Array], image_size: tuple[int, int]) -> dict[str, Array]:
        """Peaks of the heat map above a half, suppressed beside larger ones."""
        if outputs.keys() != {"heat", "count"}:
            raise UserError(f"task {task.name}: outputs {', '.join(outputs) or 'none'} given, not heat and count")
        logits = outputs["heat"][0]
        heat = 1 / (1 + np.exp(-np.clip(logits, -50, 50)))
        channel, row, column = np.nonzero((logits == _pooled(logits)) & (heat > _THRESHOLD))
        positions = resize_points(np.stack([column, row], axis=1), heat.shape[1:], image_size)
        scores = heat[channel, row, column]
        points = np.concatenate([channel[:, None], positions, scores[:, None]], axis=1).astype(np.float32)
        return {"points": points, "counts": np.maximum(outputs["count"][0], 0)}

    def pseudo_label(self, task: Task, outputs: Mapping[str, Array], image_size: tuple[int, int]) -> Target:
        """A teacher tells centres: boxes without extent."""
        finite = all(np.isfinite(value).all() for value in outputs.values())
        clean = {name: np.nan_to_num(value) for name, value in outputs.items()}
        points = self.decode(task, clean, image_size)["points"]
        return points[:, [0, 1, 2, 1, 2]], np.asarray(finite)

    def as_prediction(self, task: Task, value: Any) -> dict[str, Array]:
        """The result of `decode`, or boxes (M, 5) in its form."""
        if isinstance(value, Mapping) and value.keys() == {"points", "counts"}:
            return dict(value)
        boxes = np.asarray(value)
        if boxes.ndim != 2 or boxes.shape[1] != 5:
            raise UserError(f"task {task.name} ({self.name}) cannot be drawn from shape {boxes.shape}")
        centres = boxes[:, 1:].reshape(-1, 2, 2).mean(1)
        points = np.concatenate([boxes[:, :1], centres, np.ones((len(boxes), 1))], axis=1)
        return {"points": points, "counts": np.bincount(boxes[:, 0].astype(int), minlength=task.channels)}

    def draw(
        self,
        task: Task,
        prediction: Mapping[str, Array],
        image: Picture,
        *,
        scale: float = 1.0,
        limits: Range | None = None,
    ) -> Picture:
        """A ring around every centre, in the colour of its class."""
        picture = Image.fromarray(image)
        pen, radius, colors = ImageDraw.Draw(picture), max(3, image.shape[1] // 60), class_colors(task.channels)
        for number, x, y, _ in prediction["points"].tolist():
            red, green, blue = (int(part) for part in colors[int(number)])
            circle = (scale * x - radius, scale * y - radius, scale * x + radius, scale * y + radius)
            pen.ellipse(circle, outline=(red, green, blue), width=2)
        return np.array(picture)

    def summarize(self, task: Task, prediction: Mapping[str, Array]) -> Summary:
        """The number of objects of each class."""
        counts = {task.class_name(n): round(float(count), 2) for n, count in enumerate(prediction["counts"])}
        return Summary({"counts": counts}, ", ".join(f"{count:.1f} {name}" for name, count in counts.items()))

    def legend(self, task: Task, predictions: Sequence[Any], width: int, limits: Range | None) -> list[Image.Image]:
        """The colour of each class."""
        colors = [(int(red), int(green), int(blue)) for red, green, blue in class_colors(task.channels)]
        return [swatches([task.class_name(n) for n in range(task.channels)], colors, width)]

    def append_decoding(self, task: Task, graph: GraphBuilder, raw: Mapping[str, str]) -> Mapping[str, str]:
        """The heat map but for places that a neighbour exceeds, and counts no less than 0."""
        heat = graph.node("Sigmoid", [raw["heat"]], "chance")
        pool = graph.node("MaxPool", [raw["heat"]], "pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        lower = graph.node("Less", [raw["heat"], pool], "lower")
        kept = graph.node("Where", [lower, graph.constant("zero", np.float32(0)), heat], "centres")
        return {"heat": kept, "count": graph.node("Relu", [raw["count"]], "counts")}

    def learning(self) -> Learning:
        """See `Kind.learning`."""
        from counting.learning import LEARNING

        return LEARNING


def _pooled(logits: Array) -> Array:
    """The largest value of each place's 3 x 3 neighbourhood."""
    padded = np.pad(logits, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    return np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2)).max((3, 4))
