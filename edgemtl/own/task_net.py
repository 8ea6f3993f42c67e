"""A net of one's own, for whatever prunes, trains and scores nets: what it gives of each declared task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemtl.files.images import IMAGE_MEAN, IMAGE_STD
from edgemtl.models import ModuleNet
from edgemtl.own.declaration import Pixels, Resolved
from edgemtl.own.torch_module import Flatten, luminance
from edgemtl.tasks import Task

__all__ = ["DeclaredNet", "at_size"]


class DeclaredNet(ModuleNet):
    """A module with declared tasks: it reads images as sources normalise them, and gives every tensor in FP32.

    `module` reads the values that the declaration says (see `values`), of so many `channels`: three, or one of a grey
    net. With `full_size` maps are resized to the image's size, which labels have.
    """

    def __init__(
        self,
        module: nn.Module,
        resolved: Resolved,
        input_size: tuple[int, int],
        flatten: Flatten,
        full_size: bool = False,
        channels: int = 3,
    ) -> None:
        super().__init__(module, resolved.tasks, input_size)
        self.resolved, self.flatten, self.full_size, self.channels = resolved, flatten, full_size, channels

    def values(self, image: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) as the values (N, `channels`, H, W) that the module reads."""
        values = _values(image, self.resolved.pixels)
        return luminance(values) if self.channels == 1 else values

    def forward(self, image: Tensor) -> dict[str, dict[str, Tensor]]:
        """(N, 3, H, W), normalised, to each task's tensors, (N, …) each; `UserError` for whatever the module raises."""
        given = self.flatten(self.called(self.values(image)))
        outputs = {
            task.name: {name: _batched(given[tensor], len(image)) for name, tensor in self._tensors(task).items()}
            for task in self.tasks
        }
        return at_size(self.tasks, outputs, (image.shape[2], image.shape[3])) if self.full_size else outputs

    def _tensors(self, task: Task) -> Mapping[str, str]:
        return self.resolved.tensors[task.name]

    def with_module(self, module: nn.Module, tasks: Sequence[Task]) -> DeclaredNet:
        """The same declaration, for some of its tasks, of another module of that form."""
        net = DeclaredNet(module, self.resolved, self.input_size, self.flatten, self.full_size, self.channels)
        net.tasks = tuple(tasks)
        return net


def at_size(
    tasks: Sequence[Task], outputs: Mapping[str, Mapping[str, Tensor]], size: tuple[int, int]
) -> dict[str, dict[str, Tensor]]:
    """Outputs of tasks with maps of another size (H, W) resized to it, bilinearly."""
    return {
        task.name: {
            output.name: functional.interpolate(value, size, mode="bilinear")
            if output.dense and value.shape[2:] != size
            else value
            for output in task.outputs
            for value in [outputs[task.name][output.name]]
        }
        for task in tasks
    }


def _batched(value: Tensor, count: int) -> Tensor:
    """A tensor in FP32, with a batch of one where the module gives none for one image."""
    shaped = value if value.ndim and len(value) == count else value[None]
    return shaped if shaped.dtype == torch.float32 else shaped.float()


def _values(image: Tensor, pixels: Pixels) -> Tensor:
    if pixels == Pixels():
        return image
    column = (-1, 1, 1)
    own = [torch.tensor(each).view(column) for each in (IMAGE_MEAN, IMAGE_STD)]
    mean, std = (torch.tensor(each).view(column) for each in (pixels.mean, pixels.std))
    bytes_ = (image * own[1] + own[0]) * 255
    ordered = bytes_ if pixels.colour == "RGB" else bytes_.flip(1)
    return (ordered / pixels.scale - mean) / std
