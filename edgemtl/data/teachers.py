"""Pseudo labels: what a teacher says of an image stands in for a label that is not there.

So a proxy set needs labels of some tasks only, and a search need not touch the pipelines in which nets are trained
later (FBNetV5, Wu et al. 2021). A label that is there is never replaced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.sample import Sample, Samples, Source, Split
from edgemtl.errors import MissingDependencyError, UserError, reason_of, unknown_name
from edgemtl.files.images import normalize
from edgemtl.files.onnx import read_onnx
from edgemtl.tasks import Task, kind_of

__all__ = ["PseudoLabelled", "Teacher", "onnx_teacher", "with_pseudo_labels"]

Teacher = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From an image (1, 3, H, W), normalised, to a task's raw output (1, C, H, W) or (1, C): logits, log-metres, …"""


class PseudoLabelled:
    """A source whose missing labels are filled by `teachers`, by task; everything else is the source's own.

    A label is missing where no pixel of the image has a valid one. `marks` tell teachers apart (a hash, a version):
    they are part of `fingerprint`, which results carry. Raises `UserError` for a teacher of an unknown task.
    """

    def __init__(self, source: Source, teachers: Mapping[str, Teacher], marks: Sequence[str] = ()) -> None:
        names = [task.name for task in source.tasks]
        for name in teachers:
            if name not in names:
                raise unknown_name("task of a teacher", name, names)
        self._source, self._teachers = source, dict(teachers)
        self.name, self.tasks, self.size, self.license_note = (
            source.name,
            source.tasks,
            source.size,
            source.license_note,
        )
        content = " ".join([source.fingerprint, *sorted(teachers), *marks])
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()[:16]

    def split(self, name: Split) -> Sequence[Sample]:
        """Samples of one split, taught as they are read; raises `UserError` for an unknown split."""
        return _Taught(self._source.split(name), self.tasks, self._teachers)


class _Taught(Samples):
    def __init__(self, samples: Sequence[Sample], tasks: Sequence[Task], teachers: Mapping[str, Teacher]) -> None:
        self._samples, self._tasks, self._teachers = samples, tasks, teachers

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, position: int) -> Sample:
        return with_pseudo_labels(self._samples[position], self._tasks, self._teachers)


def with_pseudo_labels(sample: Sample, tasks: Sequence[Task], teachers: Mapping[str, Teacher]) -> Sample:
    """The sample with labels of the teachers where it has none; raises `UserError` where a teacher's shape is wrong."""
    missing = [task for task in tasks if task.name in teachers and not sample.masks[task.name].any()]
    if not missing:
        return sample
    image = normalize(sample.image[None])
    targets, masks = dict(sample.targets), dict(sample.masks)
    for task in missing:
        raw = np.asarray(teachers[task.name](image), np.float32)
        wanted = (1, task.channels, *image.shape[2:]) if task.dense else (1, task.channels)
        if raw.shape != wanted:
            raise UserError(
                f"the teacher of task {task.name!r} gives {raw.shape}, {wanted} is wanted: the raw output of a net for "
                "this task, as large as the image"
            )
        size = image.shape[2], image.shape[3]
        label = kind_of(task).pseudo_label(task, {task.outputs[0].name: raw}, size)
        targets[task.name], masks[task.name] = label
    return Sample(sample.image, targets, masks)


def onnx_teacher(path: Path, task: str) -> Teacher:
    """The ONNX file at `path` as a teacher: one input (1, 3, H, W), and an output called like the task or only one.

    Raises `UserError` for a file that cannot be opened, has other inputs or outputs, or names files of weights that are
    no regular ones in its folder, `MissingDependencyError` without ONNX Runtime.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingDependencyError("onnxruntime", "all", f"the teacher {path}") from error
    read_onnx(path, "teacher")
    ort.set_default_logger_severity(4)
    try:
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has its own kinds
        reason = reason_of(error)
        raise UserError(f"teacher {path} of task {task!r} cannot be opened ({reason}): ONNX is wanted") from error
    inputs, outputs = [each.name for each in session.get_inputs()], [each.name for each in session.get_outputs()]
    if len(inputs) != 1 or (len(outputs) != 1 and task not in outputs):
        raise UserError(
            f"teacher {path} has inputs {', '.join(inputs)} and outputs {', '.join(outputs)}: wanted are one input, "
            f"and one output or one called {task!r}"
        )
    output = task if task in outputs else outputs[0]

    def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
        try:
            return np.asarray(session.run([output], {inputs[0]: image})[0])
        except Exception as error:
            reason = reason_of(error)
            raise UserError(
                f"teacher {path} of task {task!r} cannot run on an image of {image.shape[2]} x {image.shape[3]} pixels "
                f"({reason}): give one for this --size"
            ) from error

    return run
