"""Blocks of a net as results and manifests record them: kind, tasks, cost, and position in the picture.

The maker of a net writes them; reports, profiles and comparisons draw and sum these records, so that a family of
nets that they have never met is drawn like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from edgemtl.schema import Name, Strict

__all__ = ["BlockCost", "BlockRecord", "Blocks", "Owner", "WeightRecord", "cost_by_owner"]

Amount = Annotated[int, Field(ge=0, le=10**18)]


class WeightRecord(Strict):
    """A table of parameters and its size; every block that names it shares it, so that it is stored once."""

    name: Name
    params: Amount
    bytes: Amount


class BlockRecord(Strict):
    """One block of a net, in order of execution.

    `task` is whose it is (None: the trunk's), `tasks` are all that run it, `inputs` the blocks that it reads, or
    `image`. It gives `channels`; `words` say in short what else it is (`x3`, `fused`, `5x5`), `numbers` the same by
    name, and `repeats` how many layers of one kind it is in a row. `flops` are those of one image.

    A picture puts it into the row `stage`, or, without one, into its own task's column. Blocks with a `column` lie on a
    lattice whose rows are the stages; a `link` there only brings what another row gives to its own.
    """

    name: Name
    kind: Name
    task: Name | None
    tasks: Annotated[tuple[Name, ...], Field(max_length=100)]
    inputs: Annotated[tuple[Name, ...], Field(max_length=100)]
    channels: Amount
    words: Annotated[tuple[Name, ...], Field(max_length=20)]
    numbers: Annotated[dict[Name, Amount], Field(max_length=50)]
    precision: Name
    flops: Amount
    weights: Annotated[tuple[WeightRecord, ...], Field(max_length=1000)]
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    stage: Name | None = None
    column: Annotated[int, Field(ge=0, le=1000)] | None = None
    link: bool = False


Blocks = Annotated[tuple[BlockRecord, ...], Field(max_length=5000)]

Owner = tuple[str, ...]
"""The tasks that share something; empty where it is the trunk's, which all of them do."""


@dataclass(frozen=True)
class BlockCost:
    """Total of several blocks: FLOPs of one image, parameters and bytes of weights."""

    flops: int = 0
    params: int = 0
    bytes: int = 0

    def __add__(self, other: BlockCost) -> BlockCost:
        return BlockCost(self.flops + other.flops, self.params + other.params, self.bytes + other.bytes)


def cost_by_owner(blocks: Sequence[BlockRecord]) -> dict[Owner, BlockCost]:
    """Cost of the trunk, of each task's own part, and of parts that some tasks but not all share.

    The sum is the whole net's cost: a table of weights counts once, for all who read it.
    """
    everyone = {task for block in blocks for task in block.tasks}
    costs: dict[Owner, BlockCost] = {}
    readers: dict[WeightRecord, list[BlockRecord]] = {}
    for block in blocks:
        owner = _owner([block], everyone)
        costs[owner] = costs.get(owner, BlockCost()) + BlockCost(flops=block.flops)
        for table in block.weights:
            readers.setdefault(table, []).append(block)
    for table, reading in readers.items():
        owner = _owner(reading, everyone)
        costs[owner] = costs.get(owner, BlockCost()) + BlockCost(0, table.params, table.bytes)
    return costs


def _owner(blocks: Sequence[BlockRecord], everyone: set[str]) -> Owner:
    tasks = tuple(dict.fromkeys(task for block in blocks for task in block.tasks))
    if len(tasks) == len(everyone) and any(block.task != tasks[0] for block in blocks):
        return ()
    return tasks
