"""A user's own torch module, loaded from her Python code and checked against the tasks of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch_pruning.ops import OPTYPE, module2type

from edgemtl.errors import EdgeMTLError, UserError, naming, one_line, unknown_name
from edgemtl.models.nets.plain_module import copied, eagerly, plain_module
from edgemtl.models.nets.task_net import TaskNet
from edgemtl.plugins import load_user_function
from edgemtl.tasks import Output, Task, by_tensor

__all__ = ["ModuleNet", "load_layers", "load_module"]

REPEATS = 6
"""Runs on one image that must agree: one branch in two taken at random is seen in 63 of 64 modules."""


class ModuleNet(TaskNet):
    """A module whose forward gives a dict of tasks, with what pruning and exporters ask of a net.

    What it gives of a task is a dict of its outputs, or the tensor itself where a task has one output. Paths of its
    layers begin with `module.`; it has no blocks, so that all of it is trunk.
    """

    def __init__(self, module: nn.Module, tasks: Sequence[Task], input_size: tuple[int, int]) -> None:
        super().__init__()
        self.module = module
        self.tasks = tuple(tasks)
        self.input_size = input_size
        self.block_tasks: dict[str, str | None] = {}

    def forward(self, image: Tensor) -> dict[str, dict[str, Tensor]]:
        """(N, 3, H, W), normalised, to each task's raw outputs; `UserError` for whatever the module's code raises."""
        outputs = self.called(image)
        return {task.name: _by_name(task, outputs[task.name]) for task in self.tasks}

    def called(self, image: Tensor) -> Any:
        """The module's own outputs, as it returns them; `UserError` for whatever its code raises."""
        try:
            with eagerly():
                return self.module(image.contiguous())
        except (EdgeMTLError, MemoryError):
            raise
        except (Exception, SystemExit) as error:  # her code may raise anything
            raise UserError(
                f"the module fails on a batch of {len(image)} ({one_line(error)}): it must take any batch of images, "
                "and the same way through its layers whatever they show"
            ) from error

    def with_module(self, module: nn.Module, tasks: Sequence[Task]) -> Self:
        """A net like this one of another module of that form, for some tasks."""
        return type(self)(module, tasks, self.input_size)

    def subset(self, names: Iterable[str]) -> Self:
        """The outputs of some tasks only; the same module gives them, so nothing is saved."""
        return self.with_module(self.module, self.tasks_named(names))

    def copy(self) -> Self:
        """The same net with parameters of its own."""
        return self.with_module(copied(self.module), self.tasks).eval()

    def with_channels(self, channels: Mapping[str, int]) -> Self:
        """The net itself: nothing but its layers says how many channels there are."""
        return self


def _by_name(task: Task, given: Any) -> dict[str, Any]:
    """A module's tensors of a task, by the names of its outputs."""
    if len(task.outputs) == 1 and not isinstance(given, Mapping):
        return {task.outputs[0].name: given}
    return {output.name: given[output.name] for output in task.outputs}


def load_module(spec: str, tasks: Sequence[Task], size: tuple[int, int]) -> tuple[ModuleNet, dict[str, int | None]]:
    """The net of `load_layers`' module, and the dimensions it declares, by names in the net.

    The module maps (N, 3, H, W) to a dict of what `ModuleNet` takes of each task. Raises `UserError` for whatever is
    not so, in one line.
    """
    module, declared = load_layers(spec, size)
    net = ModuleNet(module, tasks, size)
    _check_outputs(spec, net)
    return net, {f"module.{name}": dimension for name, dimension in declared.items()}


def load_layers(spec: str, size: tuple[int, int]) -> tuple[nn.Module, dict[str, int | None]]:
    """The module that `package.module:function` returns, copied, in evaluation mode, and the dimensions it declares.

    The function is the user's own code: it is imported, from the working directory too, and called. It returns a module
    that takes images (N, 3, H, W), or that module and the dimension of the channels of each parameter that stands in no
    layer. Raises `UserError` for whatever is not so, in one line.
    """
    made = _called(spec)
    module, declared = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    if not isinstance(module, nn.Module):
        raise UserError(f"{spec} returns a {type(module).__name__}: a torch.nn.Module is wanted")
    layers = _on_cpu(spec, module, size)
    _check_declared(spec, layers, declared)
    return layers, dict(declared)


def _on_cpu(spec: str, module: nn.Module, size: tuple[int, int]) -> nn.Module:
    """The module as plain layers in FP32, in evaluation mode, with every weight in reach of autograd."""
    with naming(f"{spec}: its module"):
        _materialize(module, size)
        try:
            made = plain_module(module).cpu()
            made.eval()
        except UserError:
            raise
        except Exception as error:  # her code may raise anything
            raise UserError(f"cannot be copied: {one_line(error)}") from error
    for parameter in made.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    return made


def _materialize(module: nn.Module, size: tuple[int, int]) -> None:
    """Run a module once whose lazy layers do not know their shapes yet."""
    if any(isinstance(parameter, UninitializedParameter) for parameter in module.parameters()):
        try:
            with torch.no_grad():
                module.eval()
                module(torch.zeros(2, 3, *size))
        except Exception as error:  # her code may raise anything
            raise UserError(
                f"has lazy layers, and does not run to give them their shapes: {one_line(error)}"
            ) from error


def _called(spec: str) -> Any:
    with _kept_settings():
        build = load_user_function(spec)
    try:
        with _kept_settings():
            return build()
    except (Exception, SystemExit) as error:  # her code may raise anything
        raise UserError(f"{spec} failed: {one_line(error)}; --debug shows where") from error


@contextmanager
def _kept_settings() -> Iterator[None]:
    """Undo what a user's code sets for all of torch."""
    gradients, dtype, device = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_default_device()
    try:
        yield
    finally:
        torch.set_grad_enabled(gradients)
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(device)


def _check_declared(spec: str, module: nn.Module, declared: Any) -> None:
    """`UserError` for declared dimensions that are none, and for parameters that nobody can follow undeclared."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
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
    declared_ids = {id(parameters[name]) for name in declared}
    lost = [name for name in _outside_layers(module) if id(parameters[name]) not in declared_ids]
    for name, layer in module.named_modules():
        if isinstance(layer, nn.RNNBase) and module2type(layer) == OPTYPE.ELEMENTWISE:
            raise UserError(
                f"{spec}: the dependency graph cannot follow {name}, a {type(layer).__name__}, whatever is declared: "
                "such a net cannot be pruned, the precision of its blocks can be searched"
            )
    if lost:
        raise UserError(
            f"{spec}: the dependency graph cannot follow {', '.join(lost[:8])}{' …' if len(lost) > 8 else ''}, which "
            f"stand in no layer that it knows: return module, {{{lost[0]!r}: 1}} instead of module alone, the "
            "dimension along which each has channels, or None where it has none or is to stay whole"
        )


def _outside_layers(module: nn.Module) -> list[str]:
    """Parameters of more than one value that stand in no layer which the dependency graph knows, once each."""
    outside: dict[int, str] = {}
    inside = set[int]()
    for name, layer in module.named_modules():
        for key, parameter in layer.named_parameters(recurse=False):
            if module2type(layer) != OPTYPE.ELEMENTWISE:
                inside.add(id(parameter))
            elif parameter.numel() > 1:
                outside.setdefault(id(parameter), f"{name}.{key}" if name else key)
    return [name for key, name in outside.items() if key not in inside]


def _check_outputs(spec: str, net: ModuleNet) -> None:
    """`UserError` unless the module gives every task, nothing else, each in its shape, finite, and twice the same."""
    names, (height, width) = [task.name for task in net.tasks], net.input_size
    random = torch.Generator().manual_seed(0)
    for count in (2, 1):
        image = torch.randn(count, 3, height, width, generator=random)
        outputs = _run(spec, net, image)
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
            _check_names(spec, task, outputs[task.name])
        by_task = {task.name: _by_name(task, outputs[task.name]) for task in net.tasks}
        wanted = {task.name: {output.name: output for output in task.outputs} for task in net.tasks}
        named = by_tensor(by_task)
        for name, output in by_tensor(wanted).items():
            _check_output(spec, name, output, named[name], (count, height, width))
    for _ in range(REPEATS):
        again = by_tensor(net(image))
        for name, value in named.items():
            if not torch.equal(value, again[name]):
                raise UserError(
                    f"{spec}: output {name!r} differs between runs on one image, so no cut could be checked: mend "
                    "dropout or noise that heeds no self.training, state kept between calls, or its input changed"
                )


def _run(spec: str, net: ModuleNet, image: Tensor) -> Any:
    try:
        with torch.enable_grad(), eagerly():
            return net.module(image)
    except (Exception, SystemExit) as error:  # her code may raise anything
        count, _, height, width = image.shape
        raise UserError(
            f"{spec}: its module cannot run on a batch of {count}, {height}x{width}, in FP32 on the CPU "
            f"({one_line(error)}): give the size it was made for with --size HxW, or mend it"
        ) from error


def _check_names(spec: str, task: Task, given: Any) -> None:
    """`UserError` unless this is a dict of a task's outputs, or what may be the only one."""
    names = [output.name for output in task.outputs]
    if isinstance(given, Mapping) and set(given) != set(names):
        raise UserError(
            f"{spec}: task {task.name!r} is given with the outputs {', '.join(map(str, given))}, not {', '.join(names)}"
        )
    if not isinstance(given, Mapping) and len(names) > 1:
        raise UserError(
            f"{spec}: task {task.name!r} is a {type(given).__name__}, not a dict of its outputs {', '.join(names)}"
        )


def _check_output(spec: str, name: str, output: Output, value: Any, images: tuple[int, int, int]) -> None:
    count, height, width = images
    shape = (count, output.channels, height, width) if output.dense else (count, output.channels)
    if not isinstance(value, Tensor) or tuple(value.shape) != shape:
        given = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise UserError(f"{spec}: output {name!r} is {given} for {count} images of {height}x{width}, not {shape}")
    if value.dtype != torch.float32:
        raise UserError(f"{spec}: output {name!r} is {value.dtype} of a module in FP32: torch.float32 is wanted")
    if not value.isfinite().all():
        share = 1 - float(value.isfinite().float().mean())
        raise UserError(
            f"{spec}: {share:.0%} of output {name!r} is NaN or infinite on an image of noise, so no cut could be "
            "checked: mend its weights or its forward"
        )
    if not value.requires_grad:
        raise UserError(
            f"{spec}: output {name!r} depends on no parameter that autograd can see: drop torch.no_grad and "
            "detach from the module's forward"
        )
