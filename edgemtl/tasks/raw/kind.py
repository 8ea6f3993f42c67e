"""The kind raw: tensors of any number and shape, as a net of one's own gives them; labels are their values in a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from edgemtl.canvas import Picture, Range, with_text
from edgemtl.errors import UserError
from edgemtl.tasks.kind import Array, GraphBuilder, Kind, Postprocess, Raw, Summary
from edgemtl.tasks.labels import Target, TaskSpec
from edgemtl.tasks.task import Metric, Output, Task
from edgemtl.tasks.view import View

if TYPE_CHECKING:
    from edgemtl.tasks.learning import Learning

__all__ = ["RawTensors"]

_MOST_AXES = 4
_SHOWN = 6


@dataclass(frozen=True)
class RawTensors(Kind):
    """Tensors that edgemtl does not interpret; a task of this kind declares its own outputs."""

    name: ClassVar[str] = "raw"
    metrics: ClassVar[tuple[Metric, ...]] = (Metric("agreement", True),)
    loss: ClassVar[str] = "l1"
    postprocess: ClassVar[Postprocess] = Postprocess("none", "raw", "the tensors as the net gives them")
    labels: ClassVar[type[TaskSpec] | None] = None
    declares_outputs: ClassVar[bool] = True

    def outputs(self, task: Task) -> tuple[Output, ...]:
        """Those that the task declares; one row of values where it declares none."""
        return task.outputs or (Output("values", task.channels, dense=False),)

    def missing(self, task: Task, image_size: tuple[int, int]) -> Target:
        """See `Kind.missing`."""
        count = sum(prod(_sizes(output, image_size)) for output in task.outputs)
        return np.zeros(count, np.float32), np.asarray(False)

    def resize(self, target: Target, image_size: tuple[int, int], size: tuple[int, int]) -> Target:
        """The same: nothing is known of what the values mean."""
        return target

    def augment(self, task: Task, target: Target, view: View) -> Target:
        """The same: nothing is known of what the values mean."""
        return target

    def decode(self, task: Task, outputs: Raw, image_size: tuple[int, int]) -> Any:
        """The tensors without their batch: an array where there is one, else arrays by name."""
        if lacking := [output.name for output in task.outputs if output.name not in outputs]:
            raise UserError(f"task {task.name} has no output {', '.join(lacking)}: give all of its outputs")
        arrays = {output.name: np.array(outputs[output.name][0]) for output in task.outputs}
        return arrays if len(arrays) > 1 else next(iter(arrays.values()))

    def pseudo_label(self, task: Task, outputs: Raw, image_size: tuple[int, int]) -> Target:
        """All values in a row; valid where they are finite."""
        values = np.concatenate([np.ravel(outputs[output.name][0]) for output in task.outputs])
        return np.nan_to_num(values).astype(np.float32), np.asarray(bool(np.isfinite(values).all()))

    def as_prediction(self, task: Task, value: Any) -> Any:
        """Arrays by the name of their output; what is no mapping is one array."""
        given = value if isinstance(value, Mapping) else {"values": value}
        return {str(name): _as_array(task, array) for name, array in given.items()}

    def draw(
        self, task: Task, prediction: Any, image: Picture, *, scale: float = 1.0, limits: Range | None = None
    ) -> Picture:
        """The image with each tensor in words below."""
        return with_text(image, [(line, None) for line in _words(self.as_prediction(task, prediction))])

    def summarize(self, task: Task, prediction: Any) -> Summary:
        """Shape, least, mean and largest value of each tensor; its values where they are few."""
        arrays = self.as_prediction(task, prediction)
        figures = {
            name: {"shape": list(array.shape), "least": float(array.min()), "mean": float(array.mean()),
                   "largest": float(array.max())}
            for name, array in arrays.items()
        }  # fmt: skip
        return Summary(figures, "; ".join(_words(arrays)))

    def append_decoding(self, task: Task, graph: GraphBuilder, raw: Mapping[str, str]) -> Mapping[str, str]:
        """The tensors as they are."""
        return raw

    def learning(self) -> Learning:
        """See `Kind.learning`."""
        from edgemtl.tasks.raw.learning import LEARNING

        return LEARNING


def _sizes(output: Output, image_size: tuple[int, int]) -> tuple[int, ...]:
    if output.sizes is not None:
        return output.sizes
    return (output.channels, *image_size) if output.dense else (output.channels,)


def _as_array(task: Task, value: Any) -> Array:
    array = np.asarray(value)
    while array.ndim > 1 and array.shape[0] == 1:
        array = array[0]
    if array.ndim > _MOST_AXES or not array.size:
        raise UserError(f"task {task.name} (raw) cannot be drawn from shape {np.asarray(value).shape}")
    return array


def _words(arrays: Mapping[str, Array]) -> list[str]:
    """One line a tensor."""
    lines = []
    for name, array in arrays.items():
        if array.size <= _SHOWN:
            lines.append(f"{name}: {', '.join(f'{value:.4g}' for value in array.ravel().tolist())}")
        else:
            shape = "x".join(map(str, array.shape))
            lines.append(f"{name}: {shape}, {array.min():.4g} to {array.max():.4g}, mean {array.mean():.4g}")
    return lines
