"""Small tasks, samples and a space of them: what the tests of training share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgemtl.data import Sample
from edgemtl.spaces import Space, load_space
from edgemtl.tasks import Task, make_task

TASKS = {
    task.name: task
    for task in (
        make_task("semseg", "segmentation", classes=("wall", "floor", "chair", "lamp")),
        make_task("depth", "depth"),
        make_task("normals", "normals"),
        make_task("edges", "edges"),
        make_task("saliency", "saliency"),
        make_task("points", "keypoints", 3),
        make_task("kind", "classification", 4),
        make_task("pose", "regression", 2),
    )
}

SPACE = """\
schema: edgemtl.space/1
family: cnn
input: [32, 32]
cnn:
  stem: {width: [8]}
  stages:
    - {name: a, stride: 2, width: [8, 16], depth: [1, 2], block: [fused, depthwise], expand: [1, 2]}
  features: [a]
  decoder: {width: [8]}
"""
TRAINED = (TASKS["semseg"], TASKS["depth"])


def toy_space(folder: Path, tasks: Sequence[Task] = TRAINED) -> Space:
    """A space of a few blocks."""
    path = folder / "toy.yaml"
    path.write_text(SPACE)
    return load_space(str(path), tasks)


@dataclass(frozen=True)
class Toys:
    """A data set of pictures whose brightness tells class and depth of every pixel."""

    name: str = "toys"
    tasks: tuple[Task, ...] = TRAINED
    size: tuple[int, int] = (32, 32)
    fingerprint: str = "toys/1"
    license_note: str = ""

    def split(self, name: str) -> Sequence[Sample]:
        """Eight samples a split."""
        rng = np.random.default_rng(len(name))
        return [self._sample(rng) for _ in range(8)]

    def _sample(self, rng: np.random.Generator) -> Sample:
        classes = np.kron(rng.integers(0, 4, (4, 4)), np.ones((8, 8), np.int64))
        image = np.repeat((40 + 50 * classes)[..., None], 3, 2).astype(np.uint8)
        valid = rng.random(self.size) < 0.9
        depth = (1 + classes).astype(np.float32)
        return Sample(image, {"semseg": classes, "depth": depth}, {"semseg": valid, "depth": np.ones_like(valid)})


def labels(task: Task, count: int, size: tuple[int, int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A raw output, a target and a mask of one task, random and of the shapes that a batch has."""
    rng = np.random.default_rng([seed, *task.name.encode()])
    extent = size if task.dense else ()
    output = 2 * rng.standard_normal((count, task.channels, *extent))
    if task.kind in ("segmentation", "classification"):
        target = rng.integers(0, task.channels, (count, *extent))
    elif task.kind == "depth":
        target = rng.uniform(0.2, 8, (count, *extent))
    elif task.kind == "normals":
        target = rng.standard_normal((count, 3, *extent))
        target /= np.linalg.norm(target, axis=1, keepdims=True)
    elif task.kind in ("edges", "saliency"):
        target = (rng.random((count, *extent)) < 0.3).astype(float)
    elif task.kind == "keypoints":
        target = rng.random((count, task.channels, 2)) * np.array(size[::-1])
    else:
        target = rng.standard_normal((count, task.channels))
    mask = rng.random((count, *((task.channels,) if task.kind == "keypoints" else extent))) < 0.6
    values = torch.from_numpy(target)
    return (
        torch.from_numpy(output).float(),
        values if values.dtype == torch.int64 else values.float(),
        torch.from_numpy(mask),
    )
