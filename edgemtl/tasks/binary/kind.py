"""A kind of one probability a pixel: logits (N, 1, H, W); labels are 0 and 1, float32 (H, W)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from edgemtl.canvas import Picture, Range, scale_bar
from edgemtl.tasks.binary.labels import BinarySpec
from edgemtl.tasks.common import MapKind, first_map, squeeze_single
from edgemtl.tasks.kind import Array, GraphBuilder, Postprocess, Raw, only
from edgemtl.tasks.labels import TaskSpec
from edgemtl.tasks.task import Task

if TYPE_CHECKING:
    from edgemtl.tasks.learning import Learning

__all__ = ["BinaryMap"]

_THRESHOLD = 0.5


class BinaryMap(MapKind):
    """A probability for every pixel, drawn in `colors` (a function of values from 0 to 1)."""

    channels: ClassVar[int | None] = 1
    loss: ClassVar[str] = "balanced_bce"
    postprocess: ClassVar[Postprocess] = Postprocess("sigmoid", "1 / (1 + exp(-raw))", "probability")
    labels: ClassVar[type[TaskSpec] | None] = BinarySpec
    output: ClassVar[str] = "logits"
    unit: ClassVar[str] = "logits"
    colors: ClassVar[Callable[[NDArray[np.float64]], Picture]]

    def decode(self, task: Task, outputs: Raw, image_size: tuple[int, int]) -> Array:
        """Probabilities (H, W)."""
        logits = first_map(only(outputs))
        small = np.exp(-np.abs(logits))  # of a negative number only, so that nothing overflows
        return np.where(logits >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)

    def as_label(self, prediction: Array) -> Array:
        """1 where it is more likely than not."""
        return np.asarray(prediction > _THRESHOLD, np.float32)

    def legend(self, task: Task, predictions: Sequence[Array], width: int, limits: Range | None) -> list[Image]:
        """A bar of probabilities."""
        return [scale_bar(type(self).colors, ["0", "probability", "1"], width)]

    def append_decoding(self, task: Task, graph: GraphBuilder, raw: Mapping[str, str]) -> Mapping[str, str]:
        """Probabilities (1, H, W)."""
        return {self.output: graph.node("Sigmoid", [squeeze_single(graph, only(raw))], "probability")}

    def learning(self) -> Learning:
        """See `Kind.learning`."""
        from edgemtl.tasks.binary.learning import LEARNING

        return LEARNING
