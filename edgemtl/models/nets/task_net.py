"""The interface of nets for evaluation, pruning and exporters: they predict tasks, and can be split by task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Self

from torch import Tensor, nn

from edgemtl.errors import unknown_name
from edgemtl.tasks import Task

__all__ = ["TaskNet"]


class TaskNet(nn.Module, ABC):
    """A static net that predicts `tasks`; `edgemtl.testing.nets` says whether it keeps the contract.

    In evaluation mode it takes any batch of images, the same way through its layers whatever they show, and gives the
    same outputs again. `input_size` is the (H, W) it is for; `block_tasks` names its blocks, which may have a precision
    of their own, and says which task alone runs each (None: several, or all).
    """

    tasks: tuple[Task, ...]
    input_size: tuple[int, int]
    block_tasks: Mapping[str, str | None]

    @abstractmethod
    def forward(self, image: Tensor) -> dict[str, dict[str, Tensor]]:
        """(N, 3, H, W), normalised, to the raw tensor of each output of each task."""

    @abstractmethod
    def subset(self, names: Iterable[str]) -> Self:
        """The net of some tasks only; parameters are shared with this one. `UserError` for an unknown task."""

    @abstractmethod
    def copy(self) -> Self:
        """A net of the same tasks with parameters of its own, in evaluation mode."""

    @abstractmethod
    def with_channels(self, channels: Mapping[str, int]) -> Self:
        """The net of the same layers, once they were cut to so many output channels, by name."""

    def tasks_named(self, names: Iterable[str]) -> list[Task]:
        """Tasks by name; `UserError` for an unknown one."""
        by_name, wanted = {task.name: task for task in self.tasks}, []
        for name in names:
            if name not in by_name:
                raise unknown_name("task", name, by_name)
            wanted.append(by_name[name])
        return wanted
