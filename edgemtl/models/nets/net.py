"""The plain static net: what export, pruning and profiling see."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from edgemtl.models.nets.blocks import build_block
from edgemtl.models.nets.task_net import TaskNet
from edgemtl.spaces import BlockPlan, Plan, with_channels
from edgemtl.tasks import Task, map_outputs

__all__ = ["MultiTaskNet", "Step", "run_blocks"]


class MultiTaskNet(TaskNet):
    """One trunk and a decoder per task, with nothing elastic left.

    `blocks` holds the modules by the name of their parameters, which several blocks may share; `block_tasks` says whose
    each is (None: the trunk's). `wiring` lists, in order of execution, every block of the plan, and `outputs` the block
    that gives each output of each task. The tensors are raw: logits, log-metres, unnormalised normals.
    """

    def __init__(self, plan: Plan, tasks: Sequence[Task], blocks: nn.ModuleDict | None = None) -> None:
        super().__init__()
        self.plan = plan
        self.tasks = tuple(tasks)
        self.input_size = plan.input_size
        sharing = plan.copies()
        self.block_tasks = {name: _owner(copies) for name, copies in sharing.items()}
        self.wiring = [Step.of(block) for block in plan.blocks]
        ends = {(block.task, block.output): block.name for block in plan.blocks}
        self.outputs = {task.name: {o.name: ends[task.name, o.name] for o in task.outputs} for task in self.tasks}
        self.blocks = blocks or nn.ModuleDict({name: build_block(*copies) for name, copies in sharing.items()})

    def forward(self, image: Tensor) -> dict[str, dict[str, Tensor]]:
        """(N, 3, H, W), normalised, to the raw tensor of each output of each task."""
        return map_outputs(self.run_all(image).__getitem__, self.outputs)

    def run_all(self, image: Tensor) -> dict[str, Tensor]:
        """Output of every block, by name; the image too."""
        return run_blocks(self.blocks, self.wiring, image)

    def subset(self, names: str | Iterable[str]) -> MultiTaskNet:
        """The net of some tasks only (a string is one); parameters are shared with this one."""
        tasks = self.tasks_named([names] if isinstance(names, str) else names)
        path = self.plan.path([task.name for task in tasks])
        modules = nn.ModuleDict({name: self.blocks[name] for name in dict.fromkeys(b.parameters for b in path)})
        return MultiTaskNet(Plan(self.plan.input_size, path), tasks, modules)

    def copy(self) -> MultiTaskNet:
        """The same net with parameters of its own."""
        return MultiTaskNet(self.plan, self.tasks, copy.deepcopy(self.blocks)).eval()

    def with_channels(self, channels: Mapping[str, int]) -> MultiTaskNet:
        """The net of the same layers, once they were cut to so many output channels, by the plan's names."""
        plan = with_channels(self.plan, channels)
        for block in plan.blocks:
            if block.heads:
                attention = self.blocks.get_submodule(f"{block.parameters}.attention")
                attention.heads = block.heads  # type: ignore[assignment]
        return MultiTaskNet(plan, self.tasks, self.blocks).eval()


@dataclass(frozen=True)
class Step:
    """One block as it is executed: the module it runs, what it reads, and whose router it asks where it has one."""

    name: str
    parameters: str
    inputs: tuple[str, ...]
    task: str | None
    router: str | None

    @classmethod
    def of(cls, block: BlockPlan) -> Step:
        """The step that a block's plan describes."""
        router = block.experts.router.name if block.experts else None
        return cls(block.name, block.parameters, block.inputs, block.task, router)


def run_blocks(blocks: nn.ModuleDict, wiring: Iterable[Step], image: Tensor) -> dict[str, Tensor]:
    """Output of every block of a net's `wiring`, by name; the image too."""
    values = {"image": image}
    for step in wiring:
        inputs = [values[source] for source in step.inputs]
        extra = () if step.router is None else (step.router,)
        values[step.name] = blocks[step.parameters](*inputs, *extra)
    return values


def _owner(copies: Sequence[BlockPlan]) -> str | None:
    """The task that alone runs a module; None where it is the trunk's or several tasks run it."""
    tasks = {block.task for block in copies}
    return tasks.pop() if len(tasks) == 1 else None
