"""Which experts a task's tokens go to: counted on images, by task and layer.

Every token goes to `top_k` experts; each of these is a choice. Tokens that buckets of too small a capacity would drop
are counted image by image, as an engine of batch 1 fills them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgemtl.errors import UserError
from edgemtl.models.nets.experts import Combine
from edgemtl.models.nets.net import MultiTaskNet
from edgemtl.spaces import BlockPlan, ExpertsPlan

__all__ = ["ExpertUsage", "expert_usage"]


@dataclass(frozen=True)
class ExpertUsage:
    """Routing statistics of one task's tokens (`task` None: of all tasks) in the layer of experts `layer`.

    `experts` are the numbers of those that the task may reach; whatever goes by expert has their order. `counts` are
    the tokens of each image that went to each expert, of `tokens` an image that choose `top_k` each. `gates` are the
    mean gates (0 to 1) of the tokens that went to an expert, 0 where none did.
    """

    layer: str
    task: str | None
    experts: tuple[int, ...]
    top_k: int
    tokens: int
    counts: tuple[tuple[int, ...], ...]
    gates: tuple[float, ...]

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of all choices that each expert got; they sum to 1."""
        loads = [sum(column) for column in zip(*self.counts, strict=True)]
        return tuple(load / sum(loads) for load in loads)

    @property
    def most_tokens(self) -> int:
        """The most tokens of one image that one expert got: that capacity would have dropped none."""
        return max(map(max, self.counts))

    @property
    def dropped_by_model(self) -> float:
        """Share of all choices (0 to 1) that the net itself drops; they are in no other figure."""
        return 1 - sum(map(sum, self.counts)) / (len(self.counts) * self.tokens * self.top_k)

    def dropped_by_target(self, expert_capacity: int) -> float:
        """Share (0 to 1) of all choices that are dropped where an expert takes `expert_capacity` tokens per image."""
        counts = [count for image in self.counts for count in image]
        return sum(max(0, count - expert_capacity) for count in counts) / sum(counts)


def expert_usage(net: MultiTaskNet, batches: Iterable[Tensor]) -> tuple[ExpertUsage, ...]:
    """Expert usage of every task in every layer on images (N, 3, H, W), in the plan's order; () without experts.

    The net is run in evaluation mode and left as it was. Raises `UserError` where no image is given.
    """
    routed = [(block, block.experts) for block in net.plan.blocks if block.experts is not None]
    if not routed:
        return ()
    seen_in: dict[str, list[_Seen]] = {block.name: [] for block, _ in routed}
    with _listening(net) as gates, torch.no_grad():
        for batch in batches:
            net(batch)
            for block, _ in routed:  # copies of a layer run in the plan's order
                seen_in[block.name].append(_Seen.of(gates[block.parameters].pop(0)))
    if not all(seen_in.values()):
        raise UserError("no image was given to count the tokens of experts on: give at least one")
    return tuple(_usage(block, plan, seen_in[block.name]) for block, plan in routed)


@dataclass(frozen=True)
class _Seen:
    """Routing of a batch: tokens by image and expert (N, experts), and each expert's gates, summed."""

    tokens: int
    counts: Tensor
    gates: Tensor

    @classmethod
    def of(cls, gates: Tensor) -> _Seen:
        """From the sparse gates (N, tokens, experts)."""
        return cls(gates.shape[1], (gates > 0).sum(1).cpu(), gates.double().sum((0, 1)).cpu())


def _usage(block: BlockPlan, plan: ExpertsPlan, seen: Sequence[_Seen]) -> ExpertUsage:
    counts = torch.cat([each.counts for each in seen])
    gates = torch.stack([each.gates for each in seen]).sum(0) / counts.sum(0).clamp(min=1)
    rows = tuple(tuple(map(int, row)) for row in counts.tolist())
    return ExpertUsage(
        block.parameters, block.task, plan.numbers, plan.top_k, seen[0].tokens, rows, tuple(gates.tolist())
    )


@contextmanager
def _listening(net: MultiTaskNet) -> Iterator[dict[str, list[Tensor]]]:
    """The gates (N, tokens, experts) by which each block sums its experts, call after call; in evaluation mode."""
    heard: dict[str, list[Tensor]] = {}
    hooks = []
    for name, block in net.blocks.items():
        for module in (each for each in block.modules() if isinstance(each, Combine)):
            calls = heard.setdefault(name, [])

            def hear(_: nn.Module, given: tuple[Any, ...], calls: list[Tensor] = calls) -> None:
                calls.append(given[0])

            hooks.append(module.register_forward_pre_hook(hear))
    training = net.training
    net.eval()
    try:
        yield heard
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
