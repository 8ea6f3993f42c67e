"""Outputs of several tasks, `{task: {output: value}}`: what nets, simulations and engines give, and scores read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

__all__ = ["by_tensor", "map_outputs"]

_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


def map_outputs(
    function: Callable[[_Given], _Made], outputs: Mapping[str, Mapping[str, _Given]]
) -> dict[str, dict[str, _Made]]:
    """The same tasks and outputs, with `function` of each value."""
    return {task: {name: function(value) for name, value in own.items()} for task, own in outputs.items()}


def by_tensor(outputs: Mapping[str, Mapping[str, _Given]]) -> dict[str, _Given]:
    """The values by the name of their tensor in graphs and engines, which is flat.

    A task's only output is called like the task, several are called `TASK.OUTPUT` (no task's name holds a dot).
    """
    return {
        task if len(own) == 1 else f"{task}.{name}": value
        for task, own in outputs.items()
        for name, value in own.items()
    }
