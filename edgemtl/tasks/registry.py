"""The kinds of task that there are, built in or plugged in, and tasks made of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache

from edgemtl.errors import UserError
from edgemtl.files.names import check_label, check_name
from edgemtl.plugins import Registry
from edgemtl.tasks.classification.kind import Classification
from edgemtl.tasks.depth.kind import Depth
from edgemtl.tasks.edges.kind import Edges
from edgemtl.tasks.keypoints.kind import Keypoints
from edgemtl.tasks.kind import Kind
from edgemtl.tasks.normals.kind import Normals
from edgemtl.tasks.raw.kind import RawTensors
from edgemtl.tasks.regression.kind import Regression
from edgemtl.tasks.saliency.kind import Saliency
from edgemtl.tasks.segmentation.kind import Segmentation
from edgemtl.tasks.task import FLAG_PREFIX, IMAGE_INPUT, Output, Task

__all__ = ["KINDS", "all_kinds", "find_kind", "kind_of", "make_task"]

_SIGNS = ".,:=@+<>"
_BUILT_IN = (Segmentation, Depth, Normals, Edges, Saliency, Keypoints, Classification, Regression, RawTensors)
KINDS: Registry[Kind] = Registry(
    "task kind", "edgemtl.kinds", {kind.name: kind for kind in _BUILT_IN}, instance_of=Kind
)


@cache
def find_kind(name: str) -> Kind:
    """The kind called `name`; raises `UserError` with the nearest names where there is none."""
    return KINDS.find(name)


@cache
def all_kinds() -> tuple[Kind, ...]:
    """Every kind that can be loaded: a plug-in that cannot be hides none of the others."""
    kinds = []
    for name in KINDS.names():
        with suppress(UserError):
            kinds.append(find_kind(name))
    return tuple(kinds)


def kind_of(task: Task) -> Kind:
    """The kind of a task; raises `UserError` where no package that is installed has it."""
    return find_kind(task.kind)


def make_task(
    name: str,
    kind: str,
    channels: int | None = None,
    classes: Sequence[str] = (),
    outputs: Sequence[Output] = (),
) -> Task:
    """A task with its kind's metrics and outputs; `UserError` where kind or channels do not fit.

    `outputs` are for kinds that leave them to the task (`Kind.declares_outputs`).

    Names obey `check_name`, hold none of the signs that budgets, floors and modes are written with, and are none that
    an engine's inputs have; classes obey `check_label`.

    >>> task = make_task("semseg", "segmentation", classes=["floor", "wall"])
    >>> task.channels, task.metrics[0].name
    (2, 'miou')
    """
    check_name(name, "task")
    if signs := sorted(set(name) & set(_SIGNS)):
        raise UserError(f"task {name!r} holds {signs[0]!r}: none of {' '.join(_SIGNS)} is allowed in a task's name")
    if name == IMAGE_INPUT or name.startswith(FLAG_PREFIX):
        inputs = f"{IMAGE_INPUT} and {FLAG_PREFIX}TASK"
        raise UserError(f"task {name!r} is called like an input of engines, which are {inputs}: choose another name")
    for text in classes:
        check_label(text, f"class of task {name}:")
    own = find_kind(kind)
    if outputs and not own.declares_outputs:
        raise UserError(f"task {name!r} declares outputs, which kind {kind} has of its own: leave them out")
    count = own.channels or channels or len(classes) or sum(output.channels for output in outputs)
    if count < 1:
        raise UserError(f"task {name!r} of kind {kind} needs its classes or its number of channels, 1 or more")
    if channels is not None and channels != count:
        raise UserError(f"task {name!r} of kind {kind} has {count} channels, not {channels}")
    if classes and len(classes) != count:
        raise UserError(f"task {name!r} names {len(classes)} classes but has {count} channels")
    task = Task(name, kind, count, tuple(classes), own.metrics, tuple(outputs))
    return replace(task, outputs=_checked(own.outputs(task), kind))


def _checked(outputs: tuple[Output, ...], kind: str) -> tuple[Output, ...]:
    """The outputs; raises `UserError` where a kind gives none, or two with one name."""
    names = [check_name(output.name, f"output of task kind {kind}:") for output in outputs]
    if not names or len({*names}) < len(names):
        raise UserError(
            f"task kind {kind} gives the outputs {', '.join(names) or '(none)'}: it must give one or more, each with a "
            "name of its own"
        )
    return outputs
