"""`tasks.yaml`: which outputs of a net are which task, and the values of the image that it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from edgemtl.errors import UserError, unknown_name
from edgemtl.files.images import IMAGE_MEAN, IMAGE_STD
from edgemtl.files.yaml import read_yaml
from edgemtl.own.net import OwnNet
from edgemtl.schema import Name, Strict, first_problem
from edgemtl.tasks import Output, Task, find_kind, make_task

__all__ = ["Declaration", "DeclaredTask", "Pixels", "Resolved", "as_text", "local_name", "read_declaration", "resolve"]

LIMIT_BYTES = 1 << 20
Triple = tuple[float, float, float]
Above0 = Annotated[float, Field(gt=0)]
Values = Annotated[tuple[float, ...], Field(max_length=10_000)]
Names = Annotated[tuple[Name, ...], Field(max_length=10_000)]


class Pixels(Strict):
    """The values of the image: `(pixel / scale - mean) / std`, pixels from 0 to 255, channels in this order."""

    colour: Literal["RGB", "BGR"] = "RGB"
    scale: Above0 = 255.0
    mean: Triple = IMAGE_MEAN
    std: tuple[Above0, Above0, Above0] = IMAGE_STD


class DeclaredTask(Strict):
    """A task of a net: its kind, its tensors in the kind's order or by output, and names of its classes."""

    kind: Name = "raw"
    outputs: Annotated[dict[Name, Name] | Names, Field(min_length=1)]
    classes: Names = ()

    def tensors(self) -> list[str]:
        """The tensors, in order."""
        return list(self.outputs.values() if isinstance(self.outputs, dict) else self.outputs)


class Declaration(Strict):
    """The content of `tasks.yaml`; `unused` are outputs that no task wants, which bundles leave out.

    `constants` are values of inputs beside the image, which a bundle does not read.
    """

    input: Pixels = Pixels()
    constants: Annotated[dict[Name, Values], Field(default_factory=dict, max_length=100)]
    tasks: Annotated[dict[Name, DeclaredTask], Field(min_length=1, max_length=100)]
    unused: Names = ()


@dataclass(frozen=True)
class Resolved:
    """Tasks of a net, and the net's own tensor of each output of each of them."""

    tasks: tuple[Task, ...]
    tensors: Mapping[str, Mapping[str, str]]
    pixels: Pixels


def read_declaration(path: Path) -> Declaration:
    """The declaration in a YAML file; raises `UserError`, one line, for what it cannot be."""
    _, content = read_yaml(path, "tasks file", LIMIT_BYTES)
    try:
        return Declaration.model_validate(content)
    except ValidationError as error:
        raise UserError(
            f"tasks file {path}: {first_problem(error)}: `edgemtl tasks --net NET` prints one to begin with"
        ) from error


def resolve(net: OwnNet, declaration: Declaration) -> Resolved:
    """The tasks that a declaration makes of a net's outputs.

    Raises `UserError` where an output is claimed by no task or by two, where a name is none of the net's, and where a
    tensor is not what its task's kind has.
    """
    _check_claims(net, declaration)
    if net.channels == 1 and declaration.input.colour == "BGR":
        raise UserError(f"{net.name} reads grey images: colour BGR in the tasks file says nothing, leave it RGB")
    tasks, tensors = [], {}
    for name, declared in declaration.tasks.items():
        task, own = _task(name, declared, net.outputs)
        tasks.append(task)
        tensors[name] = own
    return Resolved(tuple(tasks), tensors, declaration.input)


def _check_claims(net: OwnNet, declaration: Declaration) -> None:
    claimed: dict[str, str] = {}
    for task, declared in declaration.tasks.items():
        for tensor in declared.tensors():
            if tensor not in net.outputs:
                raise unknown_name(f"output of task {task}:", tensor, net.outputs)
            if tensor in claimed:
                raise UserError(
                    f"output {tensor!r} of {net.name} is claimed by task {claimed[tensor]} and by task {task}: "
                    "name it in one of them"
                )
            claimed[tensor] = task
    for tensor in declaration.unused:
        if tensor not in net.outputs:
            raise unknown_name("output in unused:", tensor, net.outputs)
        if tensor in claimed:
            raise UserError(
                f"output {tensor!r} of {net.name} is unused and claimed by task {claimed[tensor]}: drop one"
            )
    nobody = [tensor for tensor in net.outputs if tensor not in claimed and tensor not in declaration.unused]
    if nobody:
        raise UserError(
            f"output {nobody[0]!r} of {net.name} belongs to no task"
            f"{f', nor do {len(nobody) - 1} more' if len(nobody) > 1 else ''}: "
            "name it in a task's outputs, or under unused to leave it out"
        )


def _task(name: str, declared: DeclaredTask, sizes: Mapping[str, tuple[int, ...]]) -> tuple[Task, dict[str, str]]:
    """A task, and the tensor of each of its outputs."""
    if find_kind(declared.kind).declares_outputs:
        names = _local_names(declared)
        outputs = [_output(local, sizes[tensor]) for local, tensor in names.items()]
        return make_task(name, declared.kind, None, declared.classes, outputs), names
    channels = _channels(sizes[declared.tensors()[0]])
    task = make_task(name, declared.kind, find_kind(declared.kind).channels or channels, declared.classes)
    return task, _of_kind(task, declared, sizes)


def _of_kind(task: Task, declared: DeclaredTask, sizes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """The tensors of a kind that says itself what its outputs are; raises `UserError` where they do not fit."""
    wanted, tensors = [output.name for output in task.outputs], declared.tensors()
    given = list(declared.outputs) if isinstance(declared.outputs, dict) else wanted[: len(tensors)]
    if len(tensors) != len(wanted) or set(given) != set(wanted):
        raise UserError(
            f"task {task.name} of kind {task.kind} has the outputs {', '.join(wanted)}, {len(tensors)} given: "
            "name one tensor for each, or use the kind raw"
        )
    own = dict(zip(given, tensors, strict=True))
    for output in task.outputs:
        shape = sizes[own[output.name]]
        if len(shape) != (4 if output.dense else 2) or shape[:2] != (1, output.channels):
            form = f"1x{output.channels}" + ("xHxW" if output.dense else "")
            raise UserError(
                f"task {task.name} of kind {task.kind} needs {output.name} of shape {form}, {own[output.name]!r} is "
                f"{'x'.join(map(str, shape)) or 'one value'}: choose another kind, or raw"
            )
    return {output.name: own[output.name] for output in task.outputs}


def _channels(shape: Sequence[int]) -> int:
    return max(shape[1], 1) if len(shape) > 1 else 1


def _output(name: str, shape: tuple[int, ...]) -> Output:
    sizes = shape[1:] if shape and shape[0] == 1 else shape
    return Output(name, max(sizes[0], 1) if sizes else 1, dense=len(sizes) == 3, sizes=sizes)


def _local_names(declared: DeclaredTask) -> dict[str, str]:
    """Names of outputs that are local to a task, made of their tensors' where none are given."""
    if isinstance(declared.outputs, dict):
        return dict(declared.outputs)
    names: dict[str, str] = {}
    for tensor in declared.outputs:
        name = local_name(tensor)
        names[name if name not in names else f"{name}_{len(names)}"] = tensor
    return names


def local_name(tensor: str) -> str:
    """A name that tasks and their outputs may have, of a tensor's: `StatefulPartitionedCall:0` loses its `:0`."""
    last = tensor.removesuffix(":0").replace("\\", "/").strip("/")
    return "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in last)[:60].strip("_") or "output"


def as_text(declaration: Declaration) -> str:
    """A declaration as YAML that a person edits."""
    import yaml

    return str(yaml.safe_dump(declaration.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=100))
