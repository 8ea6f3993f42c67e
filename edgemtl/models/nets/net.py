"""The plain static net: what export, pruning and profiling see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from edgemtl.errors import unknown_name
from edgemtl.models.nets.blocks import build_block
from edgemtl.spaces import BlockPlan, Plan
from edgemtl.tasks import Task

__all__ = ["MultiTaskNet", "Step", "run_blocks"]


class MultiTaskNet(nn.Module):
    """One trunk and a decoder per task, with nothing elastic left.

    `blocks` holds the modules by the name of their parameters, which several blocks may share; `block_tasks` says whose
    each is (None: the trunk's). `wiring` lists, in order of execution, every block of the plan, and `outputs` the block
    that gives each task's tensor. The tensors are raw: logits, log-metres, unnormalised normals.
    """

    def __init__(self, plan: Plan, tasks: Sequence[Task], blocks: nn.ModuleDict | None = None) -> None:
        super().__init__()
        self.plan = plan
        self.tasks = tuple(tasks)
        self.input_size = plan.input_size
        sharing = plan.copies()
        self.block_tasks = {name: _owner(copies) for name, copies in sharing.items()}
        self.wiring = [Step.of(block) for block in plan.blocks]
        self.outputs = {block.task: block.name for block in plan.blocks if block.task is not None}
        self.blocks = blocks or nn.ModuleDict({name: build_block(*copies) for name, copies in sharing.items()})

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(N, 3, H, W), normalised, to one raw tensor a task."""
        values = self.run_all(image)
        return {task.name: values[self.outputs[task.name]] for task in self.tasks}

    def run_all(self, image: Tensor) -> dict[str, Tensor]:
        """Output of every block, by name; the image too."""
        return run_blocks(self.blocks, self.wiring, image)

    def subset(self, names: str | Iterable[str]) -> MultiTaskNet:
        """The net of some tasks only (a string is one); parameters are shared with this one."""
        wanted = [names] if isinstance(names, str) else list(names)
        known = {task.name: task for task in self.tasks}
        for name in wanted:
            if name not in known:
                raise unknown_name("task", name, known)
        kept = self.plan.path(wanted)
        modules = nn.ModuleDict({name: self.blocks[name] for name in dict.fromkeys(b.parameters for b in kept)})
        return MultiTaskNet(Plan(self.plan.input_size, kept), [known[name] for name in wanted], modules)


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
