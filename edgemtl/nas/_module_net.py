"""A user's own torch module, loaded from her Python code and checked against the tasks of a data set."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_pruning.ops import OPTYPE, module2type

from edgemtl.errors import UserError, unknown_name
from edgemtl.tasks import Task

__all__ = ["ModuleNet", "load_module"]

Dimensions = Mapping[str, int | None]
"""For parameters that stand in no layer of torch, by name: the dimension of their channels, or None."""


class ModuleNet(nn.Module):
    """A module whose forward gives a dict of one tensor a task, with what pruning and exporters ask of a net.

    Paths of its layers begin with `module.`; it has no blocks, so that all of it is trunk.
    """

    def __init__(self, module: nn.Module, tasks: Sequence[Task], input_size: tuple[int, int]) -> None:
        super().__init__()
        self.module = module
        self.tasks = tuple(tasks)
        self.input_size = input_size
        self.block_tasks: dict[str, str | None] = {}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W), normalised, to one raw tensor a task."""
        outputs = self.module(image.contiguous())
        return {task.name: outputs[task.name] for task in self.tasks}

    def subset(self, names: Iterable[str]) -> ModuleNet:
        """The outputs of some tasks only; the same module gives them, so nothing is saved."""
        known = {task.name: task for task in self.tasks}
        return ModuleNet(self.module, [known[name] for name in names], self.input_size)


def load_module(spec: str, tasks: Sequence[Task], size: tuple[int, int]) -> tuple[ModuleNet, dict[str, int | None]]:
    """What the function `package.module:function` returns, copied, in evaluation mode, and the dimensions it declares.

    The function is the user's own code: it is imported, from the working directory too, and called. It returns a module
    that maps (N, 3, H, W) to a dict of one raw tensor a task, or that module and the dimension of the channels of each
    parameter that stands in no layer. Raises `UserError` for whatever is not so, in one line.
    """
    made = _called(spec)
    module, declared = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    if not isinstance(module, nn.Module):
        raise UserError(f"{spec} returns a {type(module).__name__}: a torch.nn.Module is wanted")
    try:
        net = ModuleNet(copy.deepcopy(module).cpu().float().eval().requires_grad_(True), tasks, size)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"{spec}: its module cannot be copied: {_said(error)}") from error
    _check_declared(spec, net.module, declared)
    _check_outputs(spec, net)
    return net, {f"module.{name}": dimension for name, dimension in declared.items()}


def _called(spec: str) -> Any:
    package, _, name = spec.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in package.split(".")):
        raise UserError(f"{spec!r} names no function: write package.module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        home = import_module(package)
    except ModuleNotFoundError as error:
        if error.name and f"{package}.".startswith(f"{error.name}."):
            raise UserError(
                f"{spec}: there is no Python module {error.name!r} in the working directory or installed"
            ) from error
        raise UserError(f"{spec}: importing {package} failed: {_said(error)}") from error
    except Exception as error:  # her code may raise anything
        raise UserError(f"{spec}: importing {package} failed: {_said(error)}") from error
    functions = {
        key: value
        for key, value in vars(home).items()
        if callable(value) and (key == name or getattr(value, "__module__", "") == package)
    }
    if name not in functions:
        raise unknown_name(f"function in module {package}:", name, functions)
    try:
        return functions[name]()
    except Exception as error:  # her code may raise anything
        raise UserError(f"{spec} failed: {_said(error)}; --debug shows where") from error


def _said(error: Exception) -> str:
    """An exception on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _check_declared(spec: str, module: nn.Module, declared: Any) -> None:
    """`UserError` for declared dimensions that are none, and for parameters that nobody can follow undeclared."""
    parameters = dict(module.named_parameters())
    if not isinstance(declared, Mapping):
        raise UserError(
            f"{spec} returns a {type(declared).__name__} beside its module: a dict of parameter to dimension is wanted"
        )
    for name, dimension in declared.items():
        if name not in parameters:
            raise unknown_name(f"parameter declared by {spec}:", str(name), parameters)
        if dimension is not None and not (isinstance(dimension, int) and 0 <= dimension < parameters[name].ndim):
            raise UserError(
                f"{spec} declares dimension {dimension!r} of parameter {name}: 0 to {parameters[name].ndim - 1}, or "
                "None where it has no channels, are possible"
            )
    lost = [name for name in _outside_layers(module) if name not in declared]
    if lost:
        raise UserError(
            f"{spec}: the dependency graph cannot follow {', '.join(lost[:8])}{' …' if len(lost) > 8 else ''}, which "
            f"stand in no layer of torch: return module, {{{lost[0]!r}: 1}} instead of module alone, the dimension "
            "along which each has channels, or None where it has none"
        )


def _outside_layers(module: nn.Module) -> list[str]:
    """Parameters of more than one value in modules that are no layer the dependency graph knows."""
    return [
        f"{name}.{key}" if name else key
        for name, layer in module.named_modules()
        for key, parameter in layer.named_parameters(recurse=False)
        if parameter.numel() > 1 and module2type(layer) == OPTYPE.ELEMENTWISE
    ]


def _check_outputs(spec: str, net: ModuleNet) -> None:
    """`UserError` unless the module gives every task, nothing else, and each in its shape."""
    names, (height, width) = [task.name for task in net.tasks], net.input_size
    try:
        with torch.enable_grad():
            outputs = net.module(torch.zeros(2, 3, height, width))
    except Exception as error:  # her code may raise anything
        raise UserError(
            f"{spec}: its module cannot run on images of {height}x{width} ({_said(error)}): give the size it was made "
            "for with --size HxW"
        ) from error
    if not isinstance(outputs, Mapping):
        raise UserError(
            f"{spec}: its module returns a {type(outputs).__name__}, not a dict of one tensor a task: "
            f"{', '.join(names)} are wanted"
        )
    for name in names:
        if name not in outputs:
            raise unknown_name(f"output of {spec} for task", name, map(str, outputs))
    for name in outputs:
        if name not in names:
            raise UserError(
                f"{spec}: its module gives {name!r}, which is no task of the data ({', '.join(names)}), so nothing "
                "would protect it: return the tasks alone"
            )
    for task in net.tasks:
        shape = (2, task.channels, height, width) if task.dense else (2, task.channels)
        found = outputs[task.name]
        if not isinstance(found, Tensor) or tuple(found.shape) != shape:
            given = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise UserError(f"{spec}: output {task.name!r} is {given} for 2 images of {height}x{width}, not {shape}")
        if not found.requires_grad:
            raise UserError(
                f"{spec}: output {task.name!r} depends on no parameter that autograd can see: drop torch.no_grad and "
                "detach from the module's forward"
            )
