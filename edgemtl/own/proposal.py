"""A declaration of a net's tasks to begin with: from the names and shapes of its outputs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from edgemtl.own.declaration import Declaration, DeclaredTask, Pixels, local_name
from edgemtl.own.net import OwnNet
from edgemtl.tasks import find_kind

__all__ = ["propose_tasks"]

_SEGMENTATION = re.compile(r"seg|parsing|semantic", re.IGNORECASE)
_CLASSES = re.compile(r"class|cls|logit|prob|softmax|gender|label", re.IGNORECASE)


def propose_tasks(net: OwnNet) -> Declaration:
    """Tasks of a net: outputs that are called alike up to a dot (`pose.points`, `pose.score`) are one.

    A kind is proposed where name and shape speak for it, otherwise raw. Values of the image are ImageNet's for the
    layout of PyTorch, 0 to 1 for TensorFlow's and for grey ones; inputs beside the image are what the net was opened
    with. Nothing in a graph tells either, so look at them first.
    """
    tasks: dict[str, DeclaredTask] = {}
    for name, tensors in _groups(list(net.outputs)).items():
        outputs = {local_name(tensor.partition(".")[2] or tensor): tensor for tensor in tensors}
        if len(outputs) < len(tensors):
            outputs = {f"output_{number}": tensor for number, tensor in enumerate(tensors)}
        tasks[_free(name, tasks)] = DeclaredTask(kind=_kind(tensors, net), outputs=outputs)
    tasks = {name: _as_kind(task) for name, task in tasks.items()}
    plain = Pixels(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    seen = Pixels() if net.layout == "NCHW" and net.channels > 1 else plain
    return Declaration(input=seen, constants={name: tuple(own) for name, own in net.constants.items()}, tasks=tasks)


def _groups(names: Sequence[str]) -> dict[str, list[str]]:
    """Outputs by task: those with the same word before their first dot belong together."""
    heads = Counter(name.partition(".")[0] for name in names)
    groups: dict[str, list[str]] = {}
    for name in names:
        head = name.partition(".")[0]
        groups.setdefault(local_name(head if heads[head] > 1 else name), []).append(name)
    return groups


def _kind(tensors: Sequence[str], net: OwnNet) -> str:
    """The kind of a task; maps whose channels are last, which is likely where the image's are, are raw."""
    shape, name = net.outputs[tensors[0]], tensors[0]
    if len(tensors) > 1:
        return "raw"
    is_map = len(shape) == 4 and net.layout == "NCHW"
    if is_map and shape[0] == 1 and shape[1] > 1 and _SEGMENTATION.search(name):
        return "segmentation"
    if len(shape) == 2 and shape[0] == 1 and shape[1] > 1 and _CLASSES.search(name):
        return "classification"
    return "raw"


def _as_kind(task: DeclaredTask) -> DeclaredTask:
    """The outputs as a list where the kind names them itself."""
    return task if find_kind(task.kind).declares_outputs else task.model_copy(update={"outputs": tuple(task.tensors())})


def _free(name: str, taken: Mapping[str, DeclaredTask]) -> str:
    free, number = name, 2
    while free in taken or free == "image" or free.startswith("want_"):
        free, number = f"{name}_{number}", number + 1
    return free
