"""Parts of the manifest of a net of one's own: its tasks, its cost, the images that engines are compared on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemtl.bundle import BundleCost, BundleTask
from edgemtl.data import Batch, open_source
from edgemtl.errors import UnsupportedError
from edgemtl.export.bundle import recorded
from edgemtl.export.task_contract import describe_task
from edgemtl.own import OwnImages, Resolved, Spread
from edgemtl.profiling import count_graph
from edgemtl.progress import Report, note
from edgemtl.runtime import Outputs, load_image
from edgemtl.targets import ExportTarget, ModelTarget, TaskModel

__all__ = ["ROOMS", "CheckImages", "check_images", "described_tasks", "model_cost", "writes_models"]

ROOMS = 4
"""Rendered rooms that engines are checked on where no photos are given."""
MOST_IMAGES = 128
"""Images that engines are compared on, at most."""
_ROOM_SIZE = (192, 256)


def writes_models(target: ExportTarget) -> ExportTarget:
    """The target; `UnsupportedError` for one that writes no engine of a net of one's own."""
    if not isinstance(target, ModelTarget):
        raise UnsupportedError(
            f"target {target.traits.name} writes no engine of a net of one's own: use onnxruntime, openvino, "
            "tensorrt or tensorrt-rtx"
        )
    return target


@dataclass(frozen=True)
class CheckImages:
    """The pictures that engines are compared on, labels of them where there are some, and what provenance says."""

    pictures: Sequence[NDArray[np.uint8]]
    labels: Sequence[Batch] | None
    about: Mapping[str, int | str]


def check_images(files: Sequence[Path], given: OwnImages | None) -> CheckImages:
    """The pictures in `files`; without any those that are `given` to be reported on, else rendered rooms."""
    if files:
        return CheckImages([load_image(path) for path in files], None, {"name": "photos", "images": len(files)})
    if given is not None:
        seen = list(Spread(given.test, MOST_IMAGES))
        labels = [batch for _, batch in seen if batch is not None] if given.labelled else None
        return CheckImages([picture for picture, _ in seen], labels, {"name": given.name, "images": len(seen)})
    rooms = open_source("scenes", _ROOM_SIZE).split("validation")
    return CheckImages([rooms[number].image for number in range(ROOMS)], None, {"name": "scenes", "images": ROOMS})


def described_tasks(resolved: Resolved, size: tuple[int, int], outputs: Outputs) -> tuple[BundleTask, ...]:
    """The tasks of a net that reads images of `size`; dense outputs, too, have the sizes that it gives."""
    return tuple(_shaped(describe_task(task, size), outputs) for task in resolved.tasks)


def _shaped(task: BundleTask, outputs: Outputs) -> BundleTask:
    own = outputs[task.name]
    shaped = tuple(out.model_copy(update={"shape": own[out.name].shape}) for out in task.outputs)
    return task.model_copy(update={"outputs": shaped})


def model_cost(model: TaskModel, report: Report) -> BundleCost:
    """Counts of a graph; notes what has none."""
    cost = count_graph(model.model)
    for line in cost.notes:
        note(report, f"counts: {line}")
    return recorded(cost)
