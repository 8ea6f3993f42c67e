"""The kind classification: logits (N, C); labels are a class id, int64 ()."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from edgemtl.canvas import Picture, Range, with_text
from edgemtl.tasks.classification.labels import ClassificationSpec
from edgemtl.tasks.common import ImageKind
from edgemtl.tasks.kind import Array, GraphBuilder, Postprocess, Raw, Summary, only
from edgemtl.tasks.labels import Target, TaskSpec
from edgemtl.tasks.task import Metric, Task

if TYPE_CHECKING:
    from edgemtl.tasks.learning import Learning

__all__ = ["Classification"]

_TOP = 3


@dataclass(frozen=True)
class Classification(ImageKind):
    """The class of the whole image."""

    name: ClassVar[str] = "classification"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("accuracy", True, power=1),)
    loss: ClassVar[str] = "cross_entropy"
    postprocess: ClassVar[Postprocess] = Postprocess(
        "softmax", "exp(raw) / sum of exp(raw) along the channels", "probability of each class"
    )
    labels: ClassVar[type[TaskSpec] | None] = ClassificationSpec
    output: ClassVar[str] = "logits"
    unit: ClassVar[str] = "logits"

    def missing(self, task: Task, image_size: tuple[int, int]) -> Target:
        """See `Kind.missing`."""
        return np.asarray(0, np.int64), np.asarray(False)

    def decode(self, task: Task, outputs: Raw, image_size: tuple[int, int]) -> Array:
        """The probability of each class, (C,)."""
        logits = only(outputs)[0]
        powers = np.exp(logits - logits.max(axis=0, keepdims=True))
        return np.asarray(powers / powers.sum(axis=0, keepdims=True), np.float32)

    def as_label(self, prediction: Array) -> Array:
        """The likeliest class."""
        return np.asarray(prediction.argmax(), np.int64)

    def draw(
        self, task: Task, prediction: Array, image: Picture, *, scale: float = 1.0, limits: Range | None = None
    ) -> Picture:
        """The image with its best classes and their probabilities below; a single class where that is given."""
        if prediction.ndim == 0:
            return with_text(image, [(task.class_name(int(prediction)), None)])
        shares = np.asarray(prediction, np.float64)
        best = [int(index) for index in np.argsort(-shares)[:_TOP]]
        lines = [(f"{shares[n]:.2f} {task.class_name(n)}", float(np.clip(shares[n], 0, 1))) for n in best]
        return with_text(image, lines)

    def summarize(self, task: Task, prediction: Array) -> Summary:
        """The likeliest class."""
        best = int(prediction.argmax())
        name, probability = task.class_name(best), float(prediction[best])
        return Summary({"class": name, "probability": probability}, f"{name} ({probability:.0%})")

    def append_decoding(self, task: Task, graph: GraphBuilder, raw: Mapping[str, str]) -> Mapping[str, str]:
        """The probability of each class, (1, C)."""
        return {self.output: graph.node("Softmax", [only(raw)], "probabilities", axis=1)}

    def learning(self) -> Learning:
        """See `Kind.learning`."""
        from edgemtl.tasks.classification.learning import LEARNING

        return LEARNING
