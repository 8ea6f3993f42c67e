"""Pseudo labels: a teacher's prediction replaces a missing label.

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
from edgemtl.errors import MissingDependencyError, UserError, brief, reason_of, unknown_name
from edgemtl.files.images import normalize
from edgemtl.files.onnx import read_onnx
from edgemtl.tasks import Task, kind_of

__all__ = ["PseudoLabelled", "Teacher", "onnx_teacher", "with_pseudo_labels"]

Teacher = Callable[[NDArray[np.float32]], Mapping[str, NDArray[np.float32]]]
"""From an image (1, 3, H, W), normalised, to a task's raw outputs (1, C, H, W) or (1, C): logits, log-metres, …"""


class PseudoLabelled:
    """A source whose missing labels are filled by `teachers`, by task; everything else is the source's own.

    A label is missing where no pixel of the image has a valid one. `marks` identify teachers (a hash, a version):
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
        outputs = _checked(task, teachers[task.name](image), image.shape[2:])
        label = kind_of(task).pseudo_label(task, outputs, (image.shape[2], image.shape[3]))
        targets[task.name], masks[task.name] = label
    return Sample(sample.image, targets, masks)


def _checked(
    task: Task, outputs: Mapping[str, NDArray[np.float32]], size: Sequence[int]
) -> dict[str, NDArray[np.float32]]:
    """A teacher's outputs of a task, each of the shape that it has for an image of `size` (H, W)."""
    names = [output.name for output in task.outputs]
    if not isinstance(outputs, Mapping) or not outputs.keys() >= {*names}:
        raise UserError(
            f"the teacher of task {task.name!r} gives {brief(outputs)}: a dict of the raw outputs {', '.join(names)} "
            "is wanted"
        )
    labels = {}
    for output in task.outputs:
        raw = labels[output.name] = np.asarray(outputs[output.name], np.float32)
        wanted = (1, output.channels, *(size if output.dense else ()))
        if raw.shape != wanted:
            raise UserError(
                f"the teacher of task {task.name!r} gives {raw.shape}, {wanted} is wanted: the raw output of a net for "
                "this task, as large as the image"
            )
    return labels


def onnx_teacher(path: Path, task: Task) -> Teacher:
    """The ONNX file at `path` as a teacher: one input (1, 3, H, W), and outputs called like those of an engine.

    A file of one output is a teacher of a task of one, whatever that is called.

    Raises `UserError` for a file that cannot be opened, has other inputs or outputs, or names files of weights that are
    no regular ones in its folder, `MissingDependencyError` without ONNX Runtime.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingDependencyError("onnxruntime", "all", f"the teacher {path}") from error
    what = f"teacher {path} of task {task.name!r}"
    read_onnx(path, "teacher")
    ort.set_default_logger_severity(4)
    try:
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has its own kinds
        raise UserError(f"{what} cannot be opened ({reason_of(error)}): ONNX is wanted") from error
    inputs, outputs = [each.name for each in session.get_inputs()], [each.name for each in session.get_outputs()]
    tensors = {tensor: output for output, tensor in task.tensors.items()}
    alone = len(outputs) == len(tensors) == 1
    if len(inputs) != 1 or not (alone or tensors.keys() <= set(outputs)):
        called = " and ".join(f"{name!r}" for name in tensors)
        raise UserError(
            f"teacher {path} has inputs {', '.join(inputs)} and outputs {', '.join(outputs)}: wanted are one input, "
            f"and {'one output or one' if len(tensors) == 1 else 'outputs'} called {called}"
        )

    def run(image: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        try:
            arrays = session.run(outputs if alone else list(tensors), {inputs[0]: image})
            return dict(zip(tensors.values(), map(np.asarray, arrays), strict=True))
        except Exception as error:
            reason = reason_of(error)
            raise UserError(
                f"{what} cannot run on an image of {image.shape[2]} x {image.shape[3]} pixels "
                f"({reason}): give one for this --size"
            ) from error

    return run
