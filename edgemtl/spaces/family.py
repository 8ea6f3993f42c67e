"""Network families by name: what a space's YAML may call its `family`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from edgemtl.plugins import Registry
from edgemtl.spaces.choices import Choice, Values
from edgemtl.spaces.families.cnn import CnnSpec, cnn_blocks, cnn_choices, cnn_plan
from edgemtl.spaces.families.grid import GridSpec, grid_blocks, grid_choices, grid_idle, grid_plan
from edgemtl.spaces.families.vit import VitSpec, vit_blocks, vit_choices, vit_plan
from edgemtl.spaces.plan import Plan
from edgemtl.spaces.slots import Slot
from edgemtl.tasks import Task

__all__ = ["Family", "find_family"]


@dataclass(frozen=True)
class Family:
    """The functions that make a family: all pure, none touches a tensor.

    `spec` reads its part of the YAML; `choices` lists the architecture choices; `blocks` names every block that some
    design has (copies by their origin), and says whose it is, when it exists and where it is drawn; `plan` gives the
    net that options mean; `idle` names choices that have no effect under some options, beside those whose `active_if`
    says so. `size_multiple` divides the input's sides. Parameters of every design are prefixes (and centres, for
    kernels) of the largest one's, block by block and name by name: that is the rule which lets one `Supernet` serve all
    families.
    """

    name: str
    spec: type[BaseModel]
    choices: Callable[[Any, Sequence[Task]], tuple[Choice, ...]]
    blocks: Callable[[Any, Sequence[Task]], Mapping[str, Slot]]
    plan: Callable[[Any, Sequence[Task], Values, tuple[int, int]], Plan]
    size_multiple: int
    idle: Callable[[Any, Sequence[Task], Values], Iterable[str]] = lambda spec, tasks, values: ()


_FAMILIES = Registry(
    "network family",
    "edgemtl.families",
    {
        "cnn": lambda: Family("cnn", CnnSpec, cnn_choices, cnn_blocks, cnn_plan, 32),
        "grid": lambda: Family("grid", GridSpec, grid_choices, grid_blocks, grid_plan, 32, grid_idle),
        "vit": lambda: Family("vit", VitSpec, vit_choices, vit_blocks, vit_plan, 16),
    },
    instance_of=Family,
)


def find_family(name: str) -> Family:
    """The family called `name`, built in or plugged in through the entry-point group `edgemtl.families`.

    Raises `UserError` with the nearest names.
    """
    return _FAMILIES.find(name)
