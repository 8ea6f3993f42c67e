"""A trained supernet's largest design as the teacher of another space's supernet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from edgemtl.data import Source
from edgemtl.errors import UserError, brief
from edgemtl.files.share import find_shared
from edgemtl.models import MultiTaskNet, Supernet, load_supernet, read_header, recalibrate
from edgemtl.spaces import load_space
from edgemtl.train.feed import batches_of

__all__ = ["Teacher", "find_teacher"]

_RECALIBRATION_IMAGES = 96


@dataclass(frozen=True)
class Teacher:
    """A supernet whose largest design teaches: its file, its space's name, the hash of its weights."""

    path: Path
    space: str
    sha256: str

    def net(self, source: Source) -> MultiTaskNet:
        """The largest design at the size of `source`, its statistics measured on training images.

        Raises `UserError` where its space has changed since it was trained.
        """
        space = load_space(self.space, source.tasks, source.size)
        supernet = Supernet.of(space)
        load_supernet(supernet, self.path, space.fingerprint)
        net = supernet.extract(space.largest())
        images = batches_of(source.split("train"), 16, _RECALIBRATION_IMAGES)
        recalibrate(net, (torch.from_numpy(batch.image) for batch in images))
        return net


def find_teacher(name: str, source: Source) -> Teacher:
    """A shipped supernet of that name, or a file, as a teacher of the tasks of `source`; its space may be any.

    Raises `UserError` where there is none, or it was trained for other tasks.
    """
    shipped = None if Path(name).exists() else find_shared("nas/supernets", f"{name}.safetensors")
    path = shipped or Path(name)
    header = read_header(path)
    trained = header.get("tasks")
    if trained != (wanted := [task.name for task in source.tasks]):
        raise UserError(
            f"teacher {name} was trained for tasks {brief(trained)}, the data set has {brief(wanted)}: "
            "give a supernet of the same tasks"
        )
    return Teacher(path, str(header.get("space")), str(header.get("weights_sha256")))
