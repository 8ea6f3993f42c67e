"""The kind depth: log-metres (N, 1, H, W); labels are metres, float32 (H, W)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from PIL.Image import Image

from edgemtl.canvas import Picture, Range, rainbow, robust_range, scale_bar, values_at
from edgemtl.tasks.common import MapKind, first_map, squeeze_single
from edgemtl.tasks.depth.labels import FILL_M, DepthSpec
from edgemtl.tasks.kind import Array, GraphBuilder, Postprocess, Raw, Summary, only
from edgemtl.tasks.labels import TaskSpec
from edgemtl.tasks.task import Metric, Task
from edgemtl.tasks.view import View

if TYPE_CHECKING:
    from edgemtl.tasks.learning import Learning

__all__ = ["Depth"]


@dataclass(frozen=True)
class Depth(MapKind):
    """Metres along the camera's axis for every pixel."""

    name: ClassVar[str] = "depth"
    channels: ClassVar[int | None] = 1
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("rmse", False, "m", power=2),
        Metric("abs_rel", False, power=1),
        Metric("delta1", True, power=1),
    )
    loss: ClassVar[str] = "log_l1"
    postprocess: ClassVar[Postprocess] = Postprocess("exp", "exp(raw)", "metres")
    labels: ClassVar[type[TaskSpec] | None] = DepthSpec
    output: ClassVar[str] = "log_metres"
    unit: ClassVar[str] = "log-metres"
    fill: ClassVar[tuple[float, ...]] = (FILL_M,)

    def moved(self, label: Array, view: View) -> Array:
        """A world `scale` times smaller is what the same camera with a longer focal length sees."""
        return label if view.scale == 1 else label / np.float32(view.scale)

    def decode(self, task: Task, outputs: Raw, image_size: tuple[int, int]) -> Array:
        """Metres (H, W)."""
        return np.asarray(np.exp(first_map(only(outputs))))

    def draw(
        self, task: Task, prediction: Array, image: Picture, *, scale: float = 1.0, limits: Range | None = None
    ) -> Picture:
        """Near is warm, far is blue."""
        low, high = limits or robust_range([prediction])
        return rainbow(1 - (values_at(prediction, image) - low) / (high - low))

    def summarize(self, task: Task, prediction: Array) -> Summary:
        """Percentiles of the metres."""
        low, middle, high = (float(each) for each in np.quantile(prediction, (0.05, 0.5, 0.95)))
        return Summary({"metres": {"p5": low, "median": middle, "p95": high}}, f"{low:.2f} to {high:.2f} m")

    def limits(self, predictions: Sequence[Array]) -> Range | None:
        """The nearest and farthest metres, but for outliers."""
        return robust_range(predictions) if predictions else None

    def legend(self, task: Task, predictions: Sequence[Array], width: int, limits: Range | None) -> list[Image]:
        """A bar from the nearest to the farthest."""
        low, high = limits or robust_range(predictions)
        marks = [f"{low + share * (high - low):.1f} m" for share in (0.0, 0.5, 1.0)]
        return [scale_bar(lambda position: rainbow(1 - position), marks, width)]

    def append_decoding(self, task: Task, graph: GraphBuilder, raw: Mapping[str, str]) -> Mapping[str, str]:
        """Metres (1, H, W)."""
        return {self.output: graph.node("Exp", [squeeze_single(graph, only(raw))], "metres")}

    def learning(self) -> Learning:
        """See `Kind.learning`."""
        from edgemtl.tasks.depth.learning import LEARNING

        return LEARNING
