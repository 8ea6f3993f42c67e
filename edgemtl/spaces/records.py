"""The blocks of a plan as records, which results, manifests and reports hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgemtl.blocks import BlockRecord, WeightRecord
from edgemtl.spaces.plan import BlockPlan, Plan
from edgemtl.spaces.slots import Slot
from edgemtl.traits import Storage

__all__ = ["block_records"]


def block_records(
    plan: Plan, tasks: Sequence[str], precision: Mapping[str, str], slots: Mapping[str, Slot], storage: Storage
) -> tuple[BlockRecord, ...]:
    """A record of each block, in order of execution.

    `precision` is that of each table of parameters, `slots` (by the blocks' origins) say where a picture puts them,
    `storage` is how a target stores parameters.
    """
    runs = {task: {block.name for block in plan.path(task)} for task in tasks}
    records = []
    for block in plan.blocks:
        stored, slot = precision.get(block.parameters, "float"), slots.get(block.origin, Slot())
        numbers = _numbers(block)
        records.append(
            BlockRecord(
                name=block.name,
                kind=block.kind,
                task=block.task,
                tasks=tuple(task for task in tasks if block.name in runs[task]),
                inputs=block.inputs,
                channels=block.channels,
                words=_words(block, numbers),
                numbers=numbers,
                precision=stored,
                flops=2 * block.macs,
                weights=tuple(
                    WeightRecord(name=table.name, params=table.params, bytes=table.bytes(stored, storage))
                    for table in block.tables
                ),
                repeats=_repeats(block),
                stage=slot.stage,
                column=slot.column,
                link=slot.link,
            )
        )
    return tuple(records)


def _repeats(block: BlockPlan) -> int:
    """How many layers of one kind a block is in a row; 1 where they differ."""
    return len(block.convs) if len({replace(conv, name="") for conv in block.convs}) == 1 else 1


def _numbers(block: BlockPlan) -> dict[str, int]:
    numbers = {"kernel": max(conv.kernel for conv in block.convs)}
    if block.heads:
        hidden = [conv.outputs for conv in block.convs if conv.name == "first"]
        numbers |= {"heads": block.heads} | ({"hidden": hidden[0]} if hidden else {})
    elif block.convs[-1].kernel == 1 and len(block.convs) > 1 and not (block.parallel or block.tied):
        numbers["hidden"] = max(conv.outputs for conv in block.convs[:-1])
    if block.experts is not None:
        experts = block.experts
        numbers |= {"experts": len(experts.numbers), "top_k": experts.top_k, "hidden": experts.first.outputs}
    return numbers


def _words(block: BlockPlan, numbers: Mapping[str, int]) -> tuple[str, ...]:
    """Choices other than width and precision, abbreviated: `x3`, `fused`, `3x3`, or `6 heads`, `hidden 768`."""
    if block.experts is not None:
        return f"{block.heads} heads", f"{numbers['top_k']} of {numbers['experts']} experts"
    if block.heads:
        return f"{block.heads} heads", f"hidden {numbers['hidden']}"
    expansion = (f"x{numbers['hidden'] / block.convs[0].inputs:.3g}",) if "hidden" in numbers else ()
    return *expansion, block.kind.replace("_", " "), f"{numbers['kernel']}x{numbers['kernel']}"
