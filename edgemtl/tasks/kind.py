"""Kinds of task: their outputs, labels and predictions, and how each is read, augmented and drawn.

A kind is one object; training, export, runtime and reports call it and know no kind by name. What needs torch
(loss, distillation, metrics) stands in a `learning` module of its own, which the kind imports when it is asked for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from edgemtl.canvas import Picture, Range
from edgemtl.errors import UnsupportedError, UserError
from edgemtl.tasks.labels import Target, TaskSpec
from edgemtl.tasks.task import Metric, Output, Task
from edgemtl.tasks.view import View

if TYPE_CHECKING:
    from edgemtl.tasks.learning import Learning

__all__ = ["GraphBuilder", "Kind", "Postprocess", "Raw", "Summary", "only"]

Array = NDArray[Any]
Raw = Mapping[str, NDArray[np.float32]]
"""A task's raw tensors by the name of their output, each (N, C, H, W) or (N, C)."""


@dataclass(frozen=True)
class Postprocess:
    """The step from raw outputs to a prediction in words: its `name` and `formula`, and what the `result` is."""

    name: str
    formula: str
    result: str


@dataclass(frozen=True)
class Summary:
    """A prediction in a few `figures` (JSON values), and in `words` on one line."""

    figures: Mapping[str, Any] = field(default_factory=dict)
    words: str = "see the picture"


class GraphBuilder(Protocol):
    """Appends operators to an ONNX graph; tensors are called by their names."""

    def node(self, op: str, inputs: Sequence[str], label: str, **attributes: Any) -> str:
        """Append an operator; the name of its output, which holds `label`."""
        ...

    def constant(self, label: str, value: NDArray[Any] | np.generic) -> str:
        """Add a constant; its name, which holds `label`."""
        ...

    def shape(self, tensor: str) -> Sequence[int]:
        """The sizes of a raw tensor."""
        ...


class Kind(ABC):
    """One kind of task. Its methods hold no state; arrays that they are given stay as they are.

    `channels` is the number that all of its tasks have (None: each its own), `metrics` are scored (the first one
    decides), `loss` names what is learnt by, for people. `labels` is how labels lie in a folder data set; None where
    its tasks cannot be declared there. A task declares its outputs itself where the kind says `declares_outputs`.

    A label is an array and a boolean mask of where it is valid, in a form of the kind's own, which `Sample` holds;
    `collate` makes those of a batch. What stands under a false mask is finite and means nothing. A prediction is what
    `decode` gives: an array, or arrays by name.
    """

    name: ClassVar[str]
    channels: ClassVar[int | None] = None
    metrics: ClassVar[tuple[Metric, ...]]
    loss: ClassVar[str]
    postprocess: ClassVar[Postprocess]
    labels: ClassVar[type[TaskSpec] | None] = None
    declares_outputs: ClassVar[bool] = False

    @abstractmethod
    def outputs(self, task: Task) -> tuple[Output, ...]:
        """The tensors of the task's head, in order, by names that are local to the task."""

    @abstractmethod
    def missing(self, task: Task, image_size: tuple[int, int]) -> Target:
        """Label and mask of an image (H, W) that has no label."""

    @abstractmethod
    def resize(self, target: Target, image_size: tuple[int, int], size: tuple[int, int]) -> Target:
        """Label and mask of an image of `image_size` (H, W) once it is resized to `size`."""

    @abstractmethod
    def augment(self, task: Task, target: Target, view: View) -> Target:
        """Label and mask of what a view shows of an image; nothing is valid outside of it."""

    @abstractmethod
    def decode(self, task: Task, outputs: Raw, image_size: tuple[int, int]) -> Any:
        """The prediction of one image's raw outputs (a batch of one).

        Maps keep the outputs' size; coordinates are in pixels of the image, which had `image_size` (H, W) before it was
        resized to the net's input.
        """

    @abstractmethod
    def pseudo_label(self, task: Task, outputs: Raw, image_size: tuple[int, int]) -> Target:
        """A teacher's raw outputs for one image (a batch of one) as a label; not valid where they are not finite."""

    @abstractmethod
    def as_prediction(self, task: Task, value: Any) -> Any:
        """A prediction, or a label, as `draw` takes it: without leading axes of length 1.

        Raises `UserError` for a shape that the kind cannot have.
        """

    @abstractmethod
    def draw(
        self, task: Task, prediction: Any, image: Picture, *, scale: float = 1.0, limits: Range | None = None
    ) -> Picture:
        """A picture of a prediction, or of a label, over the image (H, W, 3), of its size.

        Coordinates times `scale` are pixels of `image`. `limits` are the values at the ends of the colours.
        """

    @abstractmethod
    def learning(self) -> Learning:
        """Loss, distillation, metrics: what needs torch, imported here."""

    def collate(self, targets: Sequence[Any], masks: Sequence[NDArray[np.bool_]]) -> tuple[Any, NDArray[np.bool_]]:
        """Labels and masks of a batch: an array, or a tuple of one for each image where they differ in size.

        They are stacked, unless the kind says otherwise.
        """
        return np.stack(targets), np.stack(masks)

    def summarize(self, task: Task, prediction: Any) -> Summary:
        """A prediction in a few numbers; by default none, as the picture shows it."""
        return Summary()

    def limits(self, predictions: Sequence[Any]) -> Range | None:
        """The values at the ends of the colours in which predictions are drawn alike; None where colours are fixed."""
        return None

    def legend(self, task: Task, predictions: Sequence[Any], width: int, limits: Range | None) -> list[Image]:
        """Strips of `width` pixels that explain the colours; none for a task whose prediction is text."""
        return []

    def append_decoding(self, task: Task, graph: GraphBuilder, raw: Mapping[str, str]) -> Mapping[str, str]:
        """Append `decode` to an ONNX graph: the raw output tensors are replaced by those of predictions.

        What it gives has a batch of one before what `decode` gives for an image of the input's size. Raises
        `UnsupportedError` where the step has no operators.
        """
        raise UnsupportedError(
            f"post-processing {self.postprocess.name} of task {task.name} cannot be put into a model: export without "
            "--with-postprocessing"
        )


def only(outputs: Mapping[str, Any]) -> Any:
    """The value of a task that has one output; raises `UserError` where there are others."""
    if len(outputs) != 1:
        raise UserError(f"outputs {', '.join(outputs) or 'none'} given: one is wanted")
    (value,) = outputs.values()
    return value
