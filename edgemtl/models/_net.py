"""The plain static net: what export, pruning and profiling see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from edgemtl.errors import unknown_name
from edgemtl.models._blocks import build_block
from edgemtl.models._plan import Plan
from edgemtl.tasks import Task

__all__ = ["MultiTaskNet"]


class MultiTaskNet(nn.Module):
    """One trunk and a decoder per task, with nothing elastic left.

    `blocks` holds every block by name; `block_tasks` says whose it is (None: the trunk's). `wiring` lists, in order
    of execution, each block with the blocks it reads ("image" is the input), and `outputs` the block that gives each
    task's tensor. The tensors are raw: logits, log-metres, unnormalised normals.
    """

    def __init__(self, plan: Plan, tasks: Sequence[Task], blocks: nn.ModuleDict | None = None) -> None:
        super().__init__()
        self.plan = plan
        self.tasks = tuple(tasks)
        self.input_size = plan.input_size
        self.block_tasks = {block.name: block.task for block in plan.blocks}
        self.wiring = [(block.name, block.inputs) for block in plan.blocks]
        self.outputs = {block.task: block.name for block in plan.blocks if block.task is not None}
        self.blocks = blocks or nn.ModuleDict({block.name: build_block(block) for block in plan.blocks})

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W), normalised, to one raw tensor a task."""
        values = {"image": image}
        for name, inputs in self.wiring:
            values[name] = self.blocks[name](*(values[source] for source in inputs))
        return {task.name: values[self.outputs[task.name]] for task in self.tasks}

    def trunk_features(self, image: Tensor) -> dict[str, Tensor]:
        """Output of every trunk block, by name."""
        values = {"image": image}
        for name, inputs in self.wiring:
            if self.block_tasks[name] is None:
                values[name] = self.blocks[name](*(values[source] for source in inputs))
        return values

    def subset(self, names: Iterable[str]) -> MultiTaskNet:
        """The net of some tasks only; parameters are shared with this one."""
        wanted = list(names)
        known = {task.name: task for task in self.tasks}
        for name in wanted:
            if name not in known:
                raise unknown_name("task", name, known)
        kept = self.plan.path(wanted)
        modules = nn.ModuleDict({block.name: self.blocks[block.name] for block in kept})
        return MultiTaskNet(Plan(self.plan.input_size, kept), [known[name] for name in wanted], modules)
