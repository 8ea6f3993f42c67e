"""The mixture-of-experts ViT family: what its YAML allows, and which net a set of options means.

M3ViT (Liang et al. 2022): a transformer encoder whose every second block has experts in place of its MLP, and a router
for each task; what a task runs is its own path through them. Ours: convolutions before the tokens (Xiao et al. 2021),
whose maps the dense decoders of the CNN family read too; each task may reach a window of the experts only, which starts
at its own position on their ring, so that a path needs its own experts' memory; depth, heads, hidden size, experts and
top-k are choices of a search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, SerializerFunctionWrapHandler, model_serializer, model_validator

from edgemtl.errors import UserError
from edgemtl.schema import Strict
from edgemtl.spaces.choices import Choice, Option, Values
from edgemtl.spaces.families.cnn import (
    DecoderSpec,
    Depths,
    Options,
    Repeats,
    Width,
    decoder_slots,
    deep_enough,
    dense_decoder,
    dense_outputs,
    option_of,
    pooled_decoder,
)
from edgemtl.spaces.plan import BlockPlan, Condition, ConvPlan, ExpertsPlan, Plan
from edgemtl.spaces.slots import Slot
from edgemtl.tasks import Task

__all__ = ["VitSpec", "vit_blocks", "vit_choices", "vit_plan"]

_PATCH = 16
_POSITION_KERNEL = 3
_PRESETS: dict[str, dict[str, Any]] = {
    name: {"width": width, "head_width": 64, "heads": [width // 64], "depth": [12], "hidden": [4 * width]}
    for name, width in (("tiny", 192), ("small", 384), ("base", 768))
}

_TORCH_NAMES = frozenset(
    [
        "T_destination",
        "add_module",
        "apply",
        "bfloat16",
        "buffers",
        "call_super_init",
        "children",
        "clear",
        "compile",
        "cpu",
        "cuda",
        "double",
        "dump_patches",
        "eval",
        "extra_repr",
        "float",
        "forward",
        "get_buffer",
        "get_extra_state",
        "get_parameter",
        "get_submodule",
        "half",
        "ipu",
        "items",
        "keys",
        "load_state_dict",
        "modules",
        "mtia",
        "named_buffers",
        "named_children",
        "named_modules",
        "named_parameters",
        "parameters",
        "pop",
        "register_backward_hook",
        "register_buffer",
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
        "register_load_state_dict_post_hook",
        "register_load_state_dict_pre_hook",
        "register_module",
        "register_parameter",
        "register_state_dict_post_hook",
        "register_state_dict_pre_hook",
        "requires_grad_",
        "set_extra_state",
        "set_submodule",
        "share_memory",
        "state_dict",
        "to",
        "to_empty",
        "train",
        "training",
        "type",
        "update",
        "values",
        "xpu",
        "zero_grad",
    ]
)
"""Attributes of every torch module, which no router can be called (a test holds the list against torch)."""


class ExpertsSpec(Strict):
    """The mixture of every `every`-th block: `count` experts of `hidden` units each.

    `kept` options are how many of them a task may reach, `top_k` options how many a token goes to, for each task and
    layer. The `router` is every `task`'s own, a gate of all tasks `conditioned` on the one it serves, or `shared` by
    all alike, which then share every block. `noise` is the standard deviation, times `count`, of what training adds to
    the routers' logits. Of one image's tokens an expert takes `capacity` times an even share at most, those with the
    largest gates, in training and after it (V-MoE, Riquelme et al. 2021): engines then know every shape ahead. Without
    it no token is ever dropped.
    """

    every: Repeats = 2
    count: Width
    hidden: Width
    kept: Options
    top_k: Options
    renormalise: bool = False
    router: Literal["task", "conditioned", "shared"] = "task"
    noise: NonNegativeFloat = 0.0
    capacity: Annotated[float, Field(ge=1)] | None = None

    @model_serializer(mode="wrap")
    def _without_unset_bound(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a bound that is not there: a space that has none means what it did before there were any."""
        fields: dict[str, Any] = dump(self)
        return fields if self.capacity is not None else {name: fields[name] for name in fields if name != "capacity"}

    @model_validator(mode="after")
    def _reachable(self) -> ExpertsSpec:
        if max(self.kept) > self.count:
            raise ValueError(f"{max(self.kept)} experts are kept of {self.count}")
        if max(self.top_k) > min(self.kept):
            raise ValueError(f"a token goes to {max(self.top_k)} experts where a task may keep only {min(self.kept)}")
        return self


class VitSpec(Strict):
    """The part of a space's YAML that this family reads.

    `stem` are the widths of three 3x3 convolutions of stride 2 before the tokens; their maps at strides 4 and 8 go to
    dense decoders. Without them patches are cut out of the image (ViT, Dosovitskiy et al. 2021). `head_width` is the
    size of one attention head, `hidden` the MLP's size. A `preset` gives these and the depth, each unless it is given:
    DeiT's tiny, small and base (Touvron et al. 2021), 12 blocks of width 192, 384 and 768.
    """

    preset: Literal["tiny", "small", "base"] | None = None
    stem: tuple[()] | tuple[Width, Width, Width] = ()
    width: Width
    head_width: Width = 64
    heads: Depths
    depth: Depths
    hidden: Options
    experts: ExpertsSpec | None = None
    decoder: DecoderSpec

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        preset = given.get("preset") if isinstance(given, dict) else None
        return {**_PRESETS[preset], **given} if preset in _PRESETS else given


def vit_choices(spec: VitSpec, tasks: Sequence[Task]) -> tuple[Choice, ...]:
    """Every architecture choice of the trunk, then of each task: its experts, top-k by layer, and its decoder.

    Raises `UserError` where a task is called like a part of the trunk.
    """
    trunk = (*_trunk(spec), "vit")
    for task in tasks:
        if task.name in trunk:
            raise UserError(f"task {task.name!r} is called like a part of the trunk ({', '.join(trunk)}): rename it")
    choices = [Choice("vit.heads", spec.heads), Choice("vit.depth", spec.depth), Choice("vit.hidden", spec.hidden)]
    for task in tasks:
        if spec.experts is not None and spec.experts.router != "shared":
            exists = _exists(spec, spec.experts.every)
            choices.append(Choice(f"{task.name}.experts", spec.experts.kept, task.name, exists))
            choices += [
                Choice(f"{task.name}.b{number}.top_k", spec.experts.top_k, task.name, _exists(spec, number))
                for number in _mixtures(spec, max(spec.depth))
            ]
        choices.append(Choice(f"{task.name}.width", spec.decoder.width, task.name))
        if dense_outputs(task):
            choices.append(Choice(f"{task.name}.depth", spec.decoder.depth, task.name))
    return tuple(choice for choice in choices if len(choice.options) > 1)


def vit_blocks(spec: VitSpec, tasks: Sequence[Task]) -> dict[str, Slot]:
    """Every block that some design has, and the options of depth under which it exists; each is a row."""
    slots = {name: Slot(stage=name) for name in _trunk(spec)}
    for number in range(1, max(spec.depth) + 1):
        slots[f"b{number}"] = Slot(active_if=_exists(spec, number), stage=f"b{number}")
    return slots | decoder_slots(tasks)


def vit_plan(spec: VitSpec, tasks: Sequence[Task], values: Values, size: tuple[int, int]) -> Plan:
    """The net that `values` mean at the input size (H, W)."""
    blocks, taps = _stem(spec, size)
    blocks.append(_patches(spec, blocks, size))
    depth = int(option_of(values, "vit.depth", spec.depth))
    mixtures = _mixtures(spec, depth)
    parted = spec.experts is not None and spec.experts.router != "shared"
    shared = depth if not parted else mixtures[0] - 1 if mixtures else depth
    for number in range(1, shared + 1):
        blocks.append(_token_block(spec, values, number, blocks[-1], None, 0, len(tasks)))
    fork = blocks[-1]
    if shared == depth:
        top = _top(spec, fork, None)
        blocks.append(top)
        for task in tasks:
            blocks += _decoder(spec, task, values, taps, top)
        return Plan(size, tuple(blocks))
    for index, task in enumerate(tasks):
        last = fork
        for number in range(shared + 1, depth + 1):
            last = _token_block(spec, values, number, last, task, index, len(tasks))
            blocks.append(last)
        top = _top(spec, last, task)
        blocks += [top, *_decoder(spec, task, values, taps, top)]
    return Plan(size, tuple(blocks))


def window(count: int, reached: int, position: int, positions: int) -> tuple[int, ...]:
    """The `reached` of `count` experts that a task may reach: a window of a ring, begun at its own `position`."""
    start = position * count // positions
    return tuple((start + number) % count for number in range(reached))


def _trunk(spec: VitSpec) -> tuple[str, ...]:
    """Names of the trunk's blocks, in order."""
    stem = tuple(f"stem{number}" for number in range(1, len(spec.stem) + 1))
    return (*stem, "patches", *(f"b{number}" for number in range(1, max(spec.depth) + 1)), "top")


def _exists(spec: VitSpec, number: int) -> dict[str, tuple[Option, ...]]:
    return deep_enough("vit.depth", spec.depth, number)


def _mixtures(spec: VitSpec, depth: int) -> list[int]:
    """Numbers of the blocks that have experts."""
    return [] if spec.experts is None else [*range(spec.experts.every, depth + 1, spec.experts.every)]


def _stem(spec: VitSpec, size: tuple[int, int]) -> tuple[list[BlockPlan], list[tuple[str, int, int, int]]]:
    """The convolutions before the tokens, and those of their maps (block, channels, H, W) that decoders read."""
    blocks: list[BlockPlan] = []
    taps, inputs, (height, width) = [], 3, size
    for number, outputs in enumerate(spec.stem, 1):
        height, width = -(-height // 2), -(-width // 2)
        source = blocks[-1].name if blocks else "image"
        conv = ConvPlan("conv", inputs, outputs, 3, 2, 1, height, width)
        blocks.append(BlockPlan(f"stem{number}", "conv", None, (conv,), (source,)))
        if number > 1:
            taps.append((f"stem{number}", outputs, height, width))
        inputs = outputs
    return blocks, taps


def _patches(spec: VitSpec, before: Sequence[BlockPlan], size: tuple[int, int]) -> BlockPlan:
    stride = _PATCH >> len(before)
    inputs, source = (before[-1].convs[-1].outputs, before[-1].name) if before else (3, "image")
    height, width = size[0] // _PATCH, size[1] // _PATCH
    proj = ConvPlan("proj", inputs, spec.width, stride, stride, 1, height, width)
    position = ConvPlan("position", spec.width, spec.width, _POSITION_KERNEL, 1, spec.width, height, width)
    return BlockPlan("patches", "patches", None, (proj, position), (source,))


def _token_block(
    spec: VitSpec, values: Values, number: int, before: BlockPlan, task: Task | None, position: int, positions: int
) -> BlockPlan:
    """One transformer block, for all tasks or as `task` runs it."""
    name, heads = f"b{number}", int(option_of(values, "vit.heads", spec.heads))
    height, width = before.convs[0].height, before.convs[0].width
    linear = ConvPlan("queries", spec.width, heads * spec.head_width, 1, 1, 1, height, width)
    attention = (
        *(replace(linear, name=part) for part in ("queries", "keys", "values")),
        replace(linear, name="proj", inputs=linear.outputs, outputs=spec.width),
    )
    hidden = int(option_of(values, "vit.hidden", spec.hidden))
    experts = None
    if spec.experts is not None and number % spec.experts.every == 0:
        hidden, experts = spec.experts.hidden, _experts(spec.experts, values, name, task, position, positions, linear)
    mlp = (
        replace(linear, name="first", outputs=hidden),
        replace(linear, name="second", inputs=hidden, outputs=spec.width),
    )
    return BlockPlan(
        name if task is None else f"{name}_{task.name}",
        "tokens",
        None if task is None else task.name,
        attention if experts else (*attention, *mlp),
        (before.name,),
        weights=name,
        heads=heads,
        others=4 * spec.width,
        experts=experts,
    )


def _experts(
    spec: ExpertsSpec, values: Values, name: str, task: Task | None, position: int, positions: int, linear: ConvPlan
) -> ExpertsPlan:
    reached, top_k, router, condition = max(spec.kept), max(spec.top_k), "all", None
    if task is not None:
        reached = int(option_of(values, f"{task.name}.experts", spec.kept))
        top_k, router = int(option_of(values, f"{task.name}.{name}.top_k", spec.top_k)), _router_name(task)
        condition = Condition(position, positions, spec.count) if spec.router == "conditioned" else None
    first = replace(linear, name="first", outputs=spec.hidden)
    second = replace(linear, name="second", inputs=spec.hidden, outputs=linear.inputs)
    routing = replace(linear, name=router, outputs=reached)
    numbers = window(spec.count, reached, position, positions)
    return ExpertsPlan(
        routing, numbers, top_k, first, second, spec.renormalise, spec.noise, condition, capacity=spec.capacity
    )


def _router_name(task: Task) -> str:
    """The task's own name, unless a torch module has an attribute that is called so (`type`, `half`, `train`)."""
    return f"{task.name}_router" if task.name in _TORCH_NAMES else task.name


def _top(spec: VitSpec, last: BlockPlan, task: Task | None) -> BlockPlan:
    """The map that decoders read, at stride 16."""
    conv = replace(last.convs[0], name="conv", inputs=spec.width, outputs=spec.width)
    name = "top" if task is None else f"top_{task.name}"
    owner = None if task is None else task.name
    return BlockPlan(name, "map", owner, (conv,), (last.name,), weights="top", others=2 * spec.width)


def _decoder(
    spec: VitSpec, task: Task, values: Values, taps: Sequence[tuple[str, int, int, int]], top: BlockPlan
) -> list[BlockPlan]:
    """The CNN family's decoders; without a stem a sub-pixel step from stride 16 to 4 stands for the pyramid."""
    dense = _dense_decoder(spec, task, values, taps, top) if dense_outputs(task) else []
    return dense + pooled_decoder(spec.decoder, task, values, top)


def _dense_decoder(
    spec: VitSpec, task: Task, values: Values, taps: Sequence[tuple[str, int, int, int]], top: BlockPlan
) -> list[BlockPlan]:
    conv = top.convs[0]
    if taps:
        return dense_decoder(spec.decoder, task, values, [*taps, (top.name, conv.outputs, conv.height, conv.width)])
    channels = int(option_of(values, f"{task.name}.width", spec.decoder.width))
    expand = replace(conv, name="conv", outputs=16 * channels)
    neck = BlockPlan(f"{task.name}_neck", "subpixel", task.name, (expand,), (top.name,), activation="none", shuffle=4)
    size = 4 * conv.height, 4 * conv.width
    return [neck, *dense_decoder(spec.decoder, task, values, [(neck.name, channels, *size)])[1:]]
