"""Common parts of kinds with one map over the image, and of kinds with one label for the whole image."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import UserError
from edgemtl.tasks.kind import Array, GraphBuilder, Kind, Raw, only
from edgemtl.tasks.labels import Target
from edgemtl.tasks.task import Output, Task
from edgemtl.tasks.view import View

__all__ = ["ImageKind", "MapKind", "first_map", "squeeze_single"]


class _OneOutput(Kind):
    """A kind whose tasks have one output, called `output`, in `unit`; predictions have `axes` axes and are labels."""

    output: ClassVar[str]
    unit: ClassVar[str]
    dense: ClassVar[bool]
    axes: ClassVar[int]

    def outputs(self, task: Task) -> tuple[Output, ...]:
        """See `Kind.outputs`."""
        return (Output(self.output, task.channels, self.dense, self.unit),)

    def as_prediction(self, task: Task, value: Any) -> Array:
        """See `Kind.as_prediction`."""
        array = np.asarray(value)
        while array.ndim > self.axes and array.shape[0] == 1:
            array = array[0]
        if array.ndim != self.axes and (self.dense or array.ndim):
            raise UserError(f"task {task.name} ({self.name}) cannot be drawn from shape {np.asarray(value).shape}")
        return array

    def pseudo_label(self, task: Task, outputs: Raw, image_size: tuple[int, int]) -> Target:
        """See `Kind.pseudo_label`."""
        raw = only(outputs)
        finite = {self.output: np.nan_to_num(raw)}
        label = self.as_label(self.decode(task, finite, image_size))
        return label, np.asarray(np.isfinite(raw[0]).all(0))

    def as_label(self, prediction: Array) -> Array:
        """A prediction as the label it stands for."""
        return np.asarray(prediction, np.float32)


class MapKind(_OneOutput):
    """A kind whose label is a map (H, W), or (H, W, C), with a mask (H, W); `fill` stands under a false mask."""

    dense: ClassVar[bool] = True
    axes: ClassVar[int] = 2
    fill: ClassVar[tuple[float, ...]] = (0.0,)
    dtype: ClassVar[type[np.generic]] = np.float32

    def missing(self, task: Task, image_size: tuple[int, int]) -> Target:
        """See `Kind.missing`."""
        target = np.full((*image_size, len(self.fill)), self.fill, self.dtype)
        return (target if len(self.fill) > 1 else target[..., 0]), np.zeros(image_size, np.bool_)

    def resize(self, target: Target, image_size: tuple[int, int], size: tuple[int, int]) -> Target:
        """By the nearest pixel."""
        if size == image_size:
            return target
        rows, columns = (
            ((np.arange(n) + 0.5) * old / n).astype(np.intp) for n, old in zip(size, image_size, strict=True)
        )
        label, mask = (values.take(rows, 0).take(columns, 1) for values in target)
        return label, mask

    def augment(self, task: Task, target: Target, view: View) -> Target:
        """Picked by the nearest pixel, never mixed."""
        label, mask = (view.pick(values) for values in target)
        label = self.moved(label, view)
        if view.inside is not None:
            mask = mask & view.inside
            label = np.array(label)
            label[~view.inside] = self.fill if label.ndim == 3 else self.fill[0]
        return label, mask

    def moved(self, label: Array, view: View) -> Array:
        """A view's labels, picked already, once their values follow its scale and mirror."""
        return label


class ImageKind(_OneOutput):
    """A kind whose label is one array for the whole image, with a mask (), in any view of the image."""

    dense: ClassVar[bool] = False
    axes: ClassVar[int] = 1

    def resize(self, target: Target, image_size: tuple[int, int], size: tuple[int, int]) -> Target:
        """See `Kind.resize`."""
        return target

    def augment(self, task: Task, target: Target, view: View) -> Target:
        """See `Kind.augment`."""
        return target


def first_map(value: NDArray[Any]) -> Array:
    """(1, C, ...) of a batch of one without the batch, and a map without the channel axis where it has one channel."""
    own = value[0]
    return np.asarray(own[0] if own.shape[0] == 1 and own.ndim > 1 else own)


def squeeze_single(graph: GraphBuilder, raw: str) -> str:
    """The same in a graph, but for the batch: (1, 1, H, W) as (1, H, W)."""
    shape = graph.shape(raw)
    if len(shape) < 3 or shape[1] != 1:
        return raw
    return graph.node("Squeeze", [raw, graph.constant("axes1", np.array([1], np.int64))], "map")
