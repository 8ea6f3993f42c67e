"""The kind regression: values (N, C), which are those of the labels, float32 (C,)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgemtl.canvas import Picture, Range, with_text
from edgemtl.tasks.common import ImageKind
from edgemtl.tasks.kind import Array, GraphBuilder, Postprocess, Raw, Summary, only
from edgemtl.tasks.labels import Target, TaskSpec
from edgemtl.tasks.regression.labels import RegressionSpec
from edgemtl.tasks.task import Metric, Task

if TYPE_CHECKING:
    from edgemtl.tasks.learning import Learning

__all__ = ["Regression"]


@dataclass(frozen=True)
class Regression(ImageKind):
    """Numbers of the whole image."""

    name: ClassVar[str] = "regression"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("mae", False, power=1),)
    loss: ClassVar[str] = "l1"
    postprocess: ClassVar[Postprocess] = Postprocess("none", "raw", "values in the units of the labels")
    labels: ClassVar[type[TaskSpec] | None] = RegressionSpec
    output: ClassVar[str] = "values"
    unit: ClassVar[str] = "label units"

    def missing(self, task: Task, image_size: tuple[int, int]) -> Target:
        """See `Kind.missing`."""
        return np.zeros(task.channels, np.float32), np.asarray(False)

    def decode(self, task: Task, outputs: Raw, image_size: tuple[int, int]) -> Array:
        """The values (C,)."""
        return np.array(only(outputs)[0])

    def draw(
        self, task: Task, prediction: Array, image: Picture, *, scale: float = 1.0, limits: Range | None = None
    ) -> Picture:
        """The image with its values below."""
        numbers = np.atleast_1d(np.asarray(prediction, np.float64))
        names = task.classes or tuple("" if len(numbers) == 1 else f"{index}: " for index in range(len(numbers)))
        lines = [(f"{name} {number:.4g}".strip(), None) for name, number in zip(names, numbers, strict=False)]
        return with_text(image, lines)

    def summarize(self, task: Task, prediction: Array) -> Summary:
        """The values themselves."""
        return Summary({"values": prediction.tolist()}, ", ".join(f"{value:.4g}" for value in prediction.tolist()))

    def append_decoding(self, task: Task, graph: GraphBuilder, raw: Mapping[str, str]) -> Mapping[str, str]:
        """The values (1, C) as they are."""
        return raw

    def learning(self) -> Learning:
        """See `Kind.learning`."""
        from edgemtl.tasks.regression.learning import LEARNING

        return LEARNING
