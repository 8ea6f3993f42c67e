"""The slimmable CNN family: what its YAML allows, and which net a set of options means.

A trunk of stages with elastic width, depth, expansion, kernel and block type, and for every task a decoder with its
own elastic width and depth. Widths are prefixes of channels (universally slimmable networks, Yu and Huang 2019), shared
by the trunk and private to each decoder (ECMT, Aich et al. 2023). MobileNetV2 is one space of this family.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from edgemtl.errors import UserError, brief
from edgemtl.schema import Strict
from edgemtl.spaces.choices import Choice, Option, Values
from edgemtl.spaces.plan import BlockPlan, ConvPlan, Plan
from edgemtl.spaces.slots import Slot
from edgemtl.tasks import Output, Task

__all__ = [
    "CnnSpec",
    "DecoderSpec",
    "Options",
    "cnn_choices",
    "cnn_plan",
    "decoder_slots",
    "deep_enough",
    "dense_decoder",
    "dense_outputs",
    "option_of",
    "pooled_decoder",
    "pooled_outputs",
]

_STEM_STRIDE = 2


def _ascending(options: tuple[int, ...]) -> tuple[int, ...]:
    """A choice's last option is its largest: that is how a supernet knows its size."""
    if any(before >= after for before, after in pairwise(options)):
        raise ValueError(f"options {brief(list(options))} must be different and in ascending order")
    return options


def _eights(widths: tuple[int, ...]) -> tuple[int, ...]:
    if any(width % 8 for width in widths):
        raise ValueError(f"widths {brief(list(widths))} must be multiples of 8")
    return widths


Width = Annotated[int, Field(gt=0, le=16_384)]
Repeats = Annotated[int, Field(gt=0, le=64)]
"""How often something is there: blocks of a stage, convolutions of a decoder, heads; also how much wider a block is."""
Options = Annotated[tuple[Width, ...], Field(min_length=1, max_length=64), AfterValidator(_ascending)]
Widths = Annotated[Options, AfterValidator(_eights)]
Depths = Annotated[tuple[Repeats, ...], Field(min_length=1, max_length=64), AfterValidator(_ascending)]


class StemSpec(Strict):
    """The first convolution: 3x3, stride 2."""

    width: Widths


class StageSpec(Strict):
    """A run of blocks at one resolution; the first block has the stride.

    `block` options: `fused` (dense 3x3 expansion, 1x1 projection) and `depthwise` (1x1 expansion, depthwise kxk, 1x1
    projection). `expand` and `kernel` hold for all blocks of the stage; `kernel` matters to depthwise blocks only.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")]
    stride: Literal[1, 2]
    width: Widths
    depth: Depths
    block: Annotated[tuple[Literal["fused", "depthwise"], ...], Field(min_length=1, max_length=2)] = ("depthwise",)
    expand: Depths
    kernel: Annotated[tuple[Literal[3, 5, 7], ...], Field(min_length=1, max_length=3), AfterValidator(_ascending)] = (
        3,
    )


class DecoderSpec(Strict):
    """A task's own part: `width` channels, `depth` 3x3 convolutions at stride 4 (for dense outputs).

    From the second on each adds to what it reads.
    """

    width: Widths
    depth: Depths = (1,)


class CnnSpec(Strict):
    """The part of a space's YAML that this family reads.

    `last` is the width of a 1x1 convolution between the trunk and pooled decoders; `features` are the stages that dense
    decoders read, at strides 4, 8, 16, …
    """

    activation: Literal["relu", "relu6"] = "relu"
    stem: StemSpec
    stages: tuple[StageSpec, ...] = Field(min_length=1, max_length=16)
    last: Width | None = None
    features: tuple[str, ...] = Field(max_length=16)
    decoder: DecoderSpec

    @model_validator(mode="after")
    def _named(self) -> CnnSpec:
        names = [stage.name for stage in self.stages]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two stages are called {', '.join(twice)}")
        if unknown := [name for name in self.features if name not in names]:
            raise ValueError(f"features name no stage: {', '.join(unknown)}; stages are {', '.join(names)}")
        return self


def cnn_choices(spec: CnnSpec, tasks: Sequence[Task]) -> tuple[Choice, ...]:
    """Every architecture choice of the trunk, then of each task's decoder.

    Raises `UserError` where a dense output cannot be decoded from the features that the space names, and where a task
    is called like a part of the trunk, whose choices would have the same names.
    """
    trunk = ("stem", *(stage.name for stage in spec.stages))
    for task in tasks:
        if task.name in trunk:
            raise UserError(f"task {task.name!r} is called like a part of the trunk ({', '.join(trunk)}): rename it")
    if any(dense_outputs(task) for task in tasks):
        _check_strides(spec)
    choices = [Choice("stem.width", spec.stem.width)]
    for stage in spec.stages:
        choices += [
            Choice(f"{stage.name}.width", stage.width),
            Choice(f"{stage.name}.depth", stage.depth),
            Choice(f"{stage.name}.expand", stage.expand),
            Choice(f"{stage.name}.block", stage.block, kind_of=stage.name),
        ]
        if "depthwise" in stage.block:
            only: dict[str, tuple[Option, ...]] = {f"{stage.name}.block": ("depthwise",)}
            choices.append(Choice(f"{stage.name}.kernel", stage.kernel, active_if=only if len(stage.block) > 1 else {}))
    for task in tasks:
        choices.append(Choice(f"{task.name}.width", spec.decoder.width, task.name))
        if dense_outputs(task):
            choices.append(Choice(f"{task.name}.depth", spec.decoder.depth, task.name))
    return tuple(choice for choice in choices if len(choice.options) > 1)


def cnn_blocks(spec: CnnSpec, tasks: Sequence[Task]) -> dict[str, Slot]:
    """Every block that some design has, and the options of depth under which it exists; a stage is a row."""
    slots = {"stem": Slot(stage="stem")}
    for stage in spec.stages:
        for number in range(1, max(stage.depth) + 1):
            exists = deep_enough(f"{stage.name}.depth", stage.depth, number)
            slots[f"{stage.name}_{number}"] = Slot(active_if=exists, stage=stage.name)
    if _has_last(spec, tasks):
        slots["last"] = Slot(stage="last")
    return slots | decoder_slots(tasks)


def deep_enough(choice: str, depths: Sequence[int], number: int) -> dict[str, tuple[Option, ...]]:
    """The options of a choice of depth under which block `number` exists; nothing where it always does."""
    deep: tuple[Option, ...] = tuple(depth for depth in depths if depth >= number)
    return {choice: deep} if len(deep) < len(depths) else {}


def decoder_slots(tasks: Sequence[Task]) -> dict[str, Slot]:
    """The blocks of every task's decoders, each in its task's column."""
    return {name: Slot(task.name) for task in tasks for name in _decoder_blocks(task)}


def _has_last(spec: CnnSpec, tasks: Sequence[Task]) -> bool:
    """Only pooled decoders read the last convolution: without one it would be work for nobody."""
    return spec.last is not None and any(pooled_outputs(task) for task in tasks)


def option_of(values: Values, name: str, options: Sequence[Option]) -> Option:
    """Option of a choice in `values`, or its only option."""
    return values.get(name, options[0])


def cnn_plan(spec: CnnSpec, tasks: Sequence[Task], values: Values, size: tuple[int, int]) -> Plan:
    """The net that `values` mean at the input size (H, W)."""
    height, width = (-(-side // _STEM_STRIDE) for side in size)
    channels = int(option_of(values, "stem.width", spec.stem.width))
    blocks = [
        BlockPlan(
            "stem",
            "conv",
            None,
            (ConvPlan("conv", 3, channels, 3, 2, 1, height, width),),
            ("image",),
            activation=spec.activation,
        )
    ]
    taps: list[tuple[str, int, int, int]] = []
    for stage in spec.stages:
        for number in range(1, int(option_of(values, f"{stage.name}.depth", stage.depth)) + 1):
            stride = stage.stride if number == 1 else 1
            block = _stage_block(spec, stage, values, number, channels, stride, blocks[-1].name, (height, width))
            blocks.append(block)
            channels, height, width = block.convs[-1].outputs, block.convs[-1].height, block.convs[-1].width
        if stage.name in spec.features:
            taps.append((blocks[-1].name, channels, height, width))
    if spec.last is not None and _has_last(spec, tasks):
        conv = ConvPlan("conv", channels, spec.last, 1, 1, 1, height, width)
        blocks.append(BlockPlan("last", "conv", None, (conv,), (blocks[-1].name,), activation=spec.activation))
    top = blocks[-1]
    for task in tasks:
        blocks += dense_decoder(spec.decoder, task, values, taps)
        blocks += pooled_decoder(spec.decoder, task, values, top)
    return Plan(size, tuple(blocks))


def _stage_block(
    spec: CnnSpec,
    stage: StageSpec,
    values: Values,
    number: int,
    inputs: int,
    stride: int,
    source: str,
    size: tuple[int, int],
) -> BlockPlan:
    height, width = (-(-side // stride) for side in size)
    outputs = int(option_of(values, f"{stage.name}.width", stage.width))
    expansion = int(option_of(values, f"{stage.name}.expand", stage.expand))
    kind = str(option_of(values, f"{stage.name}.block", stage.block))
    hidden = inputs * expansion
    # The two projections do not share weights: a supernet keeps one tensor for each name.
    last = ConvPlan("project" if kind == "fused" else "pointwise", hidden, outputs, 1, 1, 1, height, width)
    if kind == "fused":
        convs: tuple[ConvPlan, ...] = (ConvPlan("dense", inputs, hidden, 3, stride, 1, height, width), last)
    else:
        kernel = int(option_of(values, f"{stage.name}.kernel", stage.kernel))
        expand = ConvPlan("expand", inputs, hidden, 1, 1, 1, *size)
        depthwise = ConvPlan("depthwise", hidden, hidden, kernel, stride, hidden, height, width)
        convs = (depthwise, last) if expansion == 1 else (expand, depthwise, last)
    residual = stride == 1 and inputs == outputs and number > 1
    return BlockPlan(f"{stage.name}_{number}", kind, None, convs, (source,), residual, spec.activation)


def dense_outputs(task: Task) -> tuple[Output, ...]:
    """The outputs of a task that are maps over the image."""
    return tuple(output for output in task.outputs if output.dense)


def pooled_outputs(task: Task) -> tuple[Output, ...]:
    """The outputs of a task that are one vector an image."""
    return tuple(output for output in task.outputs if not output.dense)


def _decoder_blocks(task: Task) -> list[str]:
    """Names of a task's own blocks: of the decoder of its dense outputs, then of that of the others."""
    dense, pooled = dense_outputs(task), pooled_outputs(task)
    names = [f"{task.name}_neck", f"{task.name}_body"] if dense else []
    names += [_head(task, output) for output in dense]
    return names + ([_pooled_neck(task)] if pooled else []) + [_head(task, output) for output in pooled]


def _head(task: Task, output: Output) -> str:
    """The name of the block that gives one of a task's outputs."""
    return f"{task.name}_head" if len(task.outputs) == 1 else f"{task.name}_head_{output.name}"


def _pooled_neck(task: Task) -> str:
    """The name of what a task's vectors come from, which is not that of what its maps come from."""
    return f"{task.name}_pool" if dense_outputs(task) else f"{task.name}_neck"


def dense_decoder(
    spec: DecoderSpec, task: Task, values: Values, taps: Sequence[tuple[str, int, int, int]], labels: Sequence[str] = ()
) -> list[BlockPlan]:
    """Lateral 1x1 convolutions summed top-down to stride 4, a refinement there, and a sub-pixel head an output.

    Nothing where the task has no dense output. `labels` name the laterals; by default the stages that the taps' blocks
    belong to.
    """
    outputs = dense_outputs(task)
    if not outputs:
        return []
    channels = int(option_of(values, f"{task.name}.width", spec.width))
    depth = int(option_of(values, f"{task.name}.depth", spec.depth))
    labels = labels or [name.rpartition("_")[0] or name for name, *_ in taps]
    laterals = tuple(
        ConvPlan(f"lateral_{label}", inputs, channels, 1, 1, 1, h, w)
        for label, (_, inputs, h, w) in zip(labels, taps, strict=True)
    )
    _, _, height, width = taps[0]
    body = tuple(
        ConvPlan(f"conv{number}", channels, channels, 3, 1, 1, height, width) for number in range(1, depth + 1)
    )
    tied = tuple(conv.name for conv in body) if depth > 1 else ()
    shared = [
        BlockPlan(f"{task.name}_neck", "pyramid", task.name, laterals, tuple(name for name, *_ in taps), parallel=True),
        BlockPlan(f"{task.name}_body", "refinement", task.name, body, (f"{task.name}_neck",), tied=tied),
    ]
    heads = [ConvPlan("conv", channels, 16 * output.channels, 1, 1, 1, height, width) for output in outputs]
    return [*shared, *_heads(task, outputs, heads, shared[-1])]


def pooled_decoder(spec: DecoderSpec, task: Task, values: Values, top: BlockPlan) -> list[BlockPlan]:
    """Global average, a hidden layer of elastic width, a linear layer an output; nothing where all are dense."""
    outputs = pooled_outputs(task)
    if not outputs:
        return []
    channels = int(option_of(values, f"{task.name}.width", spec.width))
    hidden = ConvPlan("linear", top.convs[-1].outputs, channels, 1, 1, 1, 1, 1)
    neck = BlockPlan(_pooled_neck(task), "pool_linear", task.name, (hidden,), (top.name,))
    heads = [ConvPlan("linear", channels, output.channels, 1, 1, 1, 1, 1) for output in outputs]
    return [neck, *_heads(task, outputs, heads, neck)]


def _heads(task: Task, outputs: Sequence[Output], convs: Sequence[ConvPlan], before: BlockPlan) -> Iterator[BlockPlan]:
    """The last block of each output, all of which read the same one."""
    for output, conv in zip(outputs, convs, strict=True):
        kind, shuffle = ("subpixel", 4) if output.dense else ("linear", 1)
        last = BlockPlan(_head(task, output), kind, task.name, (conv,), (before.name,), activation="none")
        yield replace(last, shuffle=shuffle, output=output.name)


def _check_strides(spec: CnnSpec) -> None:
    """Dense decoders double the size from each feature to the one before."""
    stride = _STEM_STRIDE
    strides = []
    for stage in spec.stages:
        stride *= stage.stride
        if stage.name in spec.features:
            strides.append(stride)
    if strides[:1] != [4] or any(after != 2 * before for before, after in pairwise(strides)):
        raise UserError(f"features have strides {strides}; dense decoders want 4, 8, 16, …: choose other stages")
