"""The kind segmentation: logits (N, C, H, W); labels are class ids, int64 (H, W)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from PIL.Image import Image

from edgemtl.canvas import Color, Picture, Range, as_bytes, class_colors, labels_at, swatches
from edgemtl.tasks.common import MapKind
from edgemtl.tasks.kind import Array, GraphBuilder, Postprocess, Raw, Summary, only
from edgemtl.tasks.labels import TaskSpec
from edgemtl.tasks.segmentation.labels import SegmentationSpec
from edgemtl.tasks.task import Metric, Task

if TYPE_CHECKING:
    from edgemtl.tasks.learning import Learning

__all__ = ["Segmentation"]


@dataclass(frozen=True)
class Segmentation(MapKind):
    """A class for every pixel."""

    name: ClassVar[str] = "segmentation"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("miou", True, ratio="mean_iou"),)
    loss: ClassVar[str] = "cross_entropy"
    postprocess: ClassVar[Postprocess] = Postprocess(
        "argmax", "the channel whose value is largest, the first of equal ones", "number of the class"
    )
    labels: ClassVar[type[TaskSpec] | None] = SegmentationSpec
    output: ClassVar[str] = "logits"
    unit: ClassVar[str] = "logits"
    dtype: ClassVar[type[np.generic]] = np.int64

    def decode(self, task: Task, outputs: Raw, image_size: tuple[int, int]) -> Array:
        """Class ids (H, W), int64."""
        return np.asarray(only(outputs)[0].argmax(axis=0))

    def as_label(self, prediction: Array) -> Array:
        """Class ids are labels."""
        return prediction

    def draw(
        self, task: Task, prediction: Array, image: Picture, *, scale: float = 1.0, limits: Range | None = None
    ) -> Picture:
        """Class colours over the image, with a dark line where the class changes."""
        classes = labels_at(np.clip(prediction.astype(np.int64), 0, 255), image).astype(int)
        colors = class_colors(max(task.channels, int(classes.max()) + 1))
        drawn = 0.4 * image + 0.6 * colors[classes]
        border = np.zeros(classes.shape, bool)
        border[:, 1:] |= classes[:, 1:] != classes[:, :-1]
        border[1:] |= classes[1:] != classes[:-1]
        drawn[border] *= 0.45
        return as_bytes(drawn)

    def summarize(self, task: Task, prediction: Array) -> Summary:
        """The share of the pixels that each class has, the largest first."""
        classes, counts = np.unique(prediction, return_counts=True)
        order = np.argsort(-counts)
        shares = {task.class_name(int(classes[n])): float(counts[n] / prediction.size) for n in order}
        return Summary({"shares": shares}, ", ".join(f"{name} {share:.0%}" for name, share in [*shares.items()][:4]))

    def legend(self, task: Task, predictions: Sequence[Array], width: int, limits: Range | None) -> list[Image]:
        """The classes that occur, most frequent first."""
        classes = [np.clip(value.astype(np.int64), 0, 255).ravel() for value in predictions]
        counts = np.bincount(np.concatenate(classes))
        present = [int(index) for index in np.argsort(-counts, kind="stable") if counts[index]]
        table = class_colors(max(task.channels, len(counts)))
        colors: list[Color] = [(int(red), int(green), int(blue)) for red, green, blue in table[present]]
        return [swatches([task.class_name(index) for index in present], colors, width)]

    def append_decoding(self, task: Task, graph: GraphBuilder, raw: Mapping[str, str]) -> Mapping[str, str]:
        """Class ids (1, H, W), int64."""
        return {self.output: graph.node("ArgMax", [only(raw)], "class", axis=1, keepdims=0)}

    def learning(self) -> Learning:
        """See `Kind.learning`."""
        from edgemtl.tasks.segmentation.learning import LEARNING

        return LEARNING
