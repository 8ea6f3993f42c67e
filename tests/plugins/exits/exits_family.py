"""A family of its own: squeeze-excite stages at one resolution, which each task leaves where its design says.

Not a tensor is touched here; the block itself is in `exits_blocks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from edgemtl.schema import Strict
from edgemtl.spaces import (
    BlockPlan,
    Choice,
    ConvPlan,
    DecoderSpec,
    Family,
    Options,
    Plan,
    Slot,
    Values,
    decoder_slots,
    deep_enough,
    dense_decoder,
    option_of,
    pooled_decoder,
)
from edgemtl.tasks import Task


class ExitsSpec(Strict):
    """The part of a space's YAML: `stages` of blocks of the same widths and depths, behind a stem."""

    width: Options
    depth: Options
    stages: Annotated[int, Field(ge=1, le=8)]
    decoder: DecoderSpec


def _stages(spec: ExitsSpec) -> range:
    return range(1, spec.stages + 1)


def choices(spec: ExitsSpec, tasks: Sequence[Task]) -> tuple[Choice, ...]:
    """Width and depth of every stage; exit, width and depth of every task."""
    found = [Choice("stem.width", spec.width)]
    for stage in _stages(spec):
        found += [Choice(f"e{stage}.width", spec.width), Choice(f"e{stage}.depth", spec.depth)]
    for task in tasks:
        found += [Choice(f"{task.name}.exit", tuple(_stages(spec)), task.name)]
        found += [Choice(f"{task.name}.width", spec.decoder.width, task.name)]
        if any(output.dense for output in task.outputs):
            found.append(Choice(f"{task.name}.depth", spec.decoder.depth, task.name))
    return tuple(choice for choice in found if len(choice.options) > 1)


def blocks(spec: ExitsSpec, tasks: Sequence[Task]) -> dict[str, Slot]:
    """A row for the stem and for each stage."""
    slots = {"stem": Slot(stage="stem"), "quarter": Slot(stage="stem")}
    for stage in _stages(spec):
        for number in range(1, max(spec.depth) + 1):
            exists = deep_enough(f"e{stage}.depth", spec.depth, number)
            slots[f"e{stage}_{number}"] = Slot(active_if=exists, stage=f"exit {stage}")
    return slots | decoder_slots(tasks)


def _exit_of(spec: ExitsSpec, task: Task, values: Values) -> int:
    return int(option_of(values, f"{task.name}.exit", tuple(_stages(spec))))


def idle(spec: ExitsSpec, tasks: Sequence[Task], values: Values) -> list[str]:
    """All that is decided about stages which no task reaches."""
    unused = range(max(_exit_of(spec, task, values) for task in tasks) + 1, spec.stages + 1)
    found = [f"e{stage}.{what}" for stage in unused for what in ("width", "depth")]
    return found + [f"e{s}_{number}.precision" for s in unused for number in range(1, max(spec.depth) + 1)]


def plan(spec: ExitsSpec, tasks: Sequence[Task], values: Values, size: tuple[int, int]) -> Plan:
    """The net at the input size (H, W): a stem to stride 4, the stages that some task needs, a decoder a task."""
    channels, (height, width) = int(option_of(values, "stem.width", spec.width)), (side // 4 for side in size)
    halves = ConvPlan("conv", 3, channels, 3, 2, 1, 2 * height, 2 * width)
    quarters = ConvPlan("conv", channels, channels, 3, 2, 1, height, width)
    found = [BlockPlan("stem", "conv", None, (halves,), ("image",))]
    found.append(BlockPlan("quarter", "conv", None, (quarters,), ("stem",)))
    ends: dict[int, BlockPlan] = {}
    for stage in range(1, max(_exit_of(spec, task, values) for task in tasks) + 1):
        for number in range(1, int(option_of(values, f"e{stage}.depth", spec.depth)) + 1):
            outputs = int(option_of(values, f"e{stage}.width", spec.width))
            found.append(_squeeze_excite(f"e{stage}_{number}", channels, outputs, found[-1].name, (height, width)))
            channels = outputs
        ends[stage] = found[-1]
    for task in tasks:
        end = ends[_exit_of(spec, task, values)]
        if any(output.dense for output in task.outputs):
            taps = [(end.name, end.channels, height, width)]
            found += dense_decoder(spec.decoder, task, values, taps, ["exit"])
        if not all(output.dense for output in task.outputs):
            found += pooled_decoder(spec.decoder, task, values, end)
    return Plan(size, tuple(found))


def _squeeze_excite(name: str, inputs: int, outputs: int, source: str, size: tuple[int, int]) -> BlockPlan:
    """A 3x3 convolution whose channels are weighted by what their means over the image say (Hu et al. 2018)."""
    conv = ConvPlan("conv", inputs, outputs, 3, 1, 1, *size)
    squeeze = ConvPlan("squeeze", outputs, max(4, outputs // 2), 1, 1, 1, 1, 1)
    excite = ConvPlan("excite", squeeze.outputs, outputs, 1, 1, 1, 1, 1)
    residual = not name.endswith("_1")
    layers = (conv, squeeze, excite)
    return BlockPlan(name, "squeeze_excite", None, layers, (source,), residual, tied=("conv", "excite"))


FAMILY = Family("exits", ExitsSpec, choices, blocks, plan, 8, idle)
