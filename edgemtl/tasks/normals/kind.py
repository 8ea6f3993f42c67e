"""The kind normals: vectors (N, 3, H, W); labels are unit vectors, float32 (H, W, 3), in a batch (N, 3, H, W).

They are in the camera's frame: x right, y down, z forward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from edgemtl.canvas import Picture, Range, as_bytes, swatches, values_at
from edgemtl.errors import UserError
from edgemtl.tasks.common import MapKind
from edgemtl.tasks.kind import Array, GraphBuilder, Postprocess, Raw, only
from edgemtl.tasks.labels import TaskSpec
from edgemtl.tasks.normals.labels import FILL, NormalsSpec
from edgemtl.tasks.task import Metric, Task
from edgemtl.tasks.view import View

if TYPE_CHECKING:
    from edgemtl.tasks.learning import Learning

__all__ = ["Normals"]

_SHORTEST = 1e-12


@dataclass(frozen=True)
class Normals(MapKind):
    """A unit vector for every pixel."""

    name: ClassVar[str] = "normals"
    channels: ClassVar[int | None] = 3
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("mean_angle", False, "deg", power=1),
        Metric("within_11", True, power=1),
    )
    loss: ClassVar[str] = "cosine"
    postprocess: ClassVar[Postprocess] = Postprocess(
        "normalize",
        "raw / max(length of raw along the channels, 1e-12), channels last",
        "unit vectors: x right, y down, z forward",
    )
    labels: ClassVar[type[TaskSpec] | None] = NormalsSpec
    output: ClassVar[str] = "vectors"
    unit: ClassVar[str] = "vector components"
    axes: ClassVar[int] = 3
    fill: ClassVar[tuple[float, ...]] = FILL

    def collate(self, targets: Sequence[Array], masks: Sequence[NDArray[np.bool_]]) -> tuple[Array, NDArray[np.bool_]]:
        """Vectors (N, 3, H, W)."""
        return np.ascontiguousarray(np.stack(targets).transpose(0, 3, 1, 2)), np.stack(masks)

    def moved(self, label: Array, view: View) -> Array:
        """A mirrored world has its x turned; a zoom keeps directions."""
        return label * np.array([-1, 1, 1], np.float32) if view.mirror else label

    def decode(self, task: Task, outputs: Raw, image_size: tuple[int, int]) -> Array:
        """Unit vectors (H, W, 3)."""
        vectors = only(outputs)[0]
        length = np.linalg.norm(vectors, axis=0, keepdims=True)
        return np.ascontiguousarray((vectors / np.maximum(length, _SHORTEST)).transpose(1, 2, 0))

    def as_prediction(self, task: Task, value: Any) -> Array:
        """Vectors (H, W, 3), of such with their components first as well."""
        array = super().as_prediction(task, value)
        if array.shape[0] == 3 and array.shape[2] != 3:
            array = np.moveaxis(array, 0, -1)
        if array.shape[-1] != 3:
            raise UserError(f"task {task.name} ({self.name}) cannot be drawn from shape {np.asarray(value).shape}")
        return array

    def draw(
        self, task: Task, prediction: Array, image: Picture, *, scale: float = 1.0, limits: Range | None = None
    ) -> Picture:
        """Right is red, up is green, towards the camera is blue (the camera looks along +z, its y points down)."""
        turned = np.asarray(prediction, np.float64) * (1, -1, -1)
        parts = [values_at(np.asarray(turned[..., axis]), image) for axis in range(3)]
        return as_bytes(127.5 * (np.stack(parts, axis=-1) + 1))

    def legend(self, task: Task, predictions: Sequence[Array], width: int, limits: Range | None) -> list[Image]:
        """The colours of three directions."""
        return [swatches(["right", "up", "to the camera"], [(255, 128, 128), (128, 255, 128), (128, 128, 255)], width)]

    def append_decoding(self, task: Task, graph: GraphBuilder, raw: Mapping[str, str]) -> Mapping[str, str]:
        """Unit vectors (1, H, W, 3)."""
        vectors = only(raw)
        squares = graph.node("Mul", [vectors, vectors], "squares")
        axes = graph.constant("axes1", np.array([1], np.int64))
        length = graph.node("Sqrt", [graph.node("ReduceSum", [squares, axes], "total", keepdims=1)], "length")
        divisor = graph.node("Max", [length, graph.constant("least", np.float32(_SHORTEST))], "divisor")
        unit = graph.node("Div", [vectors, divisor], "unit")
        return {self.output: graph.node("Transpose", [unit], "last", perm=[0, 2, 3, 1])}

    def learning(self) -> Learning:
        """See `Kind.learning`."""
        from edgemtl.tasks.normals.learning import LEARNING

        return LEARNING
