"""Parts of the manifest of a net of one's own: its tasks, its cost, the images that engines are compared on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemtl.bundle import BundleCost, BundleInput, BundleTask, describe_task
from edgemtl.data import open_source
from edgemtl.errors import UnsupportedError
from edgemtl.export.bundle import recorded
from edgemtl.export.own_parity import Image
from edgemtl.own import Resolved
from edgemtl.profiling import count_graph
from edgemtl.progress import Report, note
from edgemtl.runtime import Outputs, load_image, prepare_image
from edgemtl.targets import ExportTarget, ModelTarget, TaskModel

__all__ = ["ROOMS", "check_images", "described_tasks", "images_seen", "model_cost", "writes_models"]

ROOMS = 4
"""Rendered rooms that engines are checked on where no photos are given."""
_ROOM_SIZE = (192, 256)


def writes_models(target: ExportTarget) -> ExportTarget:
    """The target; `UnsupportedError` for one that writes no engine of a net of one's own."""
    if not isinstance(target, ModelTarget):
        raise UnsupportedError(
            f"target {target.traits.name} writes no engine of a net of one's own: use onnxruntime, openvino or "
            "tensorrt-rtx"
        )
    return target


def check_images(pictures: Sequence[Path], about: BundleInput) -> list[Image]:
    """The images of the check, as the net reads them."""
    seen: Iterable[NDArray[np.uint8]] = [load_image(path) for path in pictures]
    if not pictures:
        rooms = open_source("scenes", _ROOM_SIZE).split("validation")
        seen = (rooms[number].image for number in range(ROOMS))
    return [prepare_image(picture, (about.height, about.width), about) for picture in seen]


def images_seen(pictures: Sequence[Path]) -> dict[str, int | str]:
    """The images of the check, as provenance tells of them."""
    return {"name": "photos" if pictures else "scenes", "images": len(pictures) or ROOMS}


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
