"""Weights of a supernet for a supernet of other tasks: the trunk, and of the tasks what matches.

A user's task starts from the weights of a task of the same name, block by block: where it has other classes, its
last block is initialised anew. Shapes decide; nobody can check that two data sets mean the same by a class.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from edgemtl.errors import UserError, brief
from edgemtl.models.nets.supernet import Supernet
from edgemtl.models.weights.files import read_supernet

__all__ = ["Matched", "load_matching"]


@dataclass(frozen=True)
class Matched:
    """Parameters that a supernet took from a file, and those left or initialised anew, with the reason in words."""

    taken: tuple[str, ...]
    left: tuple[str, ...]


def load_matching(supernet: Supernet, path: Path) -> Matched:
    """Fill a supernet's trunk, and the blocks of its tasks that match, from a file made for other tasks.

    Raises `UserError` where the file is damaged, or its trunk is another: then it was trained for another space.
    """
    (state, header), table = read_supernet(path), supernet.shared
    same = {
        name
        for name, parameter in table.items()
        if name in state and state[name].shape == parameter.shape and state[name].is_floating_point()
    }
    owners = _owners(supernet, table)
    trunk = [name for name in table if owners[name] is None]
    lacking = [name for name in trunk if name not in same]
    other = [name for name in lacking if name in state]
    if other or 2 * len(lacking) > len(trunk):
        name = (other or lacking)[0]
        raise UserError(
            f"supernet {path} was trained for space {brief(header.get('space'))} and has another trunk: {name} is "
            f"{_shape(state.get(name))}, {_shape(table[name])} is wanted; choose its space with --space, and its size"
        )
    with torch.no_grad():
        for name in same:
            table[name].copy_(state[name])
    tasks = header.get("tasks")
    return _tell(supernet, state, same, owners, [str(task) for task in tasks] if isinstance(tasks, list) else [])


def _owners(supernet: Supernet, names: Iterable[str]) -> dict[str, str | None]:
    """Whose each parameter is: a task's, also where a block of the trunk keeps one for each task; none: the trunk's."""
    every = [block for plan in supernet.envelopes for block in plan.blocks]
    first = [block for block in every if block.task and block.origin == block.name]
    own: dict[str, str | None] = {f"blocks.{block.name}.": block.task for block in first}
    routed = ((block, block.experts.router.name) for block in every if block.task and block.experts)
    own |= {f"blocks.{block.origin}.mixture.routers.{router}.": block.task for block, router in routed}
    return {name: next((own[start] for start in own if name.startswith(start)), None) for name in names}


def _tell(
    supernet: Supernet, state: Mapping[str, Tensor], same: set[str], owners: Mapping[str, str | None], there: list[str]
) -> Matched:
    taken, left = list[str](), list[str]()
    for task in (None, *(task.name for task in supernet.tasks)):
        own = [name for name, owner in owners.items() if owner == task]
        if not same.intersection(own):
            why = "the file has no such task" if task not in there else "nothing of it has the same shape"
            left.append(f"{task} begins anew ({why})")
            continue
        other = _by_block(name for name in own if name not in same)
        taken.append((task or "the trunk") + (f" without {', '.join(other)}" if other else ""))
        for block, name in other.items():
            left.append(f"{block} begins anew ({_shape(state.get(name))} there, {_shape(supernet.shared[name])} here)")
    own_tasks = {task.name for task in supernet.tasks}
    left += [f"{task} is left in the file (no task of this data set)" for task in there if task not in own_tasks]
    return Matched(tuple(taken), tuple(left))


def _shape(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else str(tuple(tensor.shape))


def _by_block(names: Iterable[str]) -> dict[str, str]:
    """A tensor of each block, its weight rather than its bias."""
    blocks: dict[str, list[str]] = defaultdict(list)
    for name in names:
        blocks[name.split(".")[1]].append(name)
    return {block: max(inside) for block, inside in blocks.items()}
