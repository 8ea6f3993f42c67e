"""A plan with fewer channels: what pruning leaves of a net, as data.

Only the channels that some convolution gives are said; what the next one reads follows from the blocks' wiring, so that
no table of channels can contradict itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgemtl.errors import UserError, unknown_name
from edgemtl.models._plan import BlockPlan, ConvPlan, Plan

__all__ = ["narrowed", "prunable_channels"]

IMAGE_CHANNELS = 3
SUBPIXELS = 16
_HIDDEN = "first"


def prunable_channels(plan: Plan) -> dict[str, int]:
    """Output channels of everything that may get fewer, by `BLOCK.CONVOLUTION` (`BLOCK.experts.first` for experts).

    Left out are what a task's output means, what depthwise convolutions and sub-pixel steps give (it follows from what
    they read), and in transformers the width of tokens and of heads.
    """
    ends = {block.task: block.parameters for block in plan.blocks if block.task is not None}
    found = {}
    for block in plan.blocks:
        if block.parameters not in ends.values() and block.kind not in ("subpixel", "patches"):
            for conv in block.convs:
                if conv.groups == 1 and (block.kind != "tokens" or conv.name == _HIDDEN):
                    found[f"{block.parameters}.{conv.name}"] = conv.outputs
        if block.experts is not None:
            found[_experts_name(block)] = block.experts.first.outputs
    return found


def narrowed(plan: Plan, channels: Mapping[str, int]) -> Plan:
    """The plan whose convolutions give `channels` outputs, by the names of `prunable_channels`; others as before.

    Raises `UserError` for an unknown name, a count below 1 or above the plan's, and for sums of unequal widths.
    """
    known = prunable_channels(plan)
    for name, count in channels.items():
        if name not in known:
            raise unknown_name("prunable convolution", name, known)
        if not 1 <= count <= known[name]:
            raise UserError(f"{name} cannot have {count} channels: 1 to {known[name]} are possible")
    width, blocks = {"image": IMAGE_CHANNELS}, []
    for block in plan.blocks:
        made = _narrow_block(block, [width[source] for source in block.inputs], channels)
        blocks.append(made)
        width[block.name] = _width(made)
    return Plan(plan.input_size, tuple(blocks))


def _narrow_block(block: BlockPlan, inputs: Sequence[int], channels: Mapping[str, int]) -> BlockPlan:
    if block.kind == "tokens":
        return _narrow_tokens(block, inputs[0], channels)
    parallel, convs = block.kind == "pyramid", list[ConvPlan]()
    for number, conv in enumerate(block.convs):
        reads = inputs[number] if parallel else convs[-1].outputs if convs else inputs[0]
        depthwise = conv.groups > 1
        gives = reads if depthwise else channels.get(f"{block.parameters}.{conv.name}", conv.outputs)
        convs.append(replace(conv, inputs=reads, outputs=gives, groups=reads if depthwise else 1))
    summed = [conv.outputs for conv in convs] if parallel else []
    if block.residual or block.kind == "merge":
        summed = [inputs[-1], convs[-1].outputs]
    if len(set(summed)) > 1:
        raise UserError(
            f"block {block.name} adds tensors of {' and '.join(map(str, summed))} channels: make them equal"
        )
    return replace(block, convs=tuple(convs))


def _narrow_tokens(block: BlockPlan, width: int, channels: Mapping[str, int]) -> BlockPlan:
    if width != block.convs[0].inputs:
        raise UserError(f"block {block.name} reads {block.convs[0].inputs} channels a token, {width} are given")
    hidden = channels.get(f"{block.parameters}.{_HIDDEN}")
    convs = block.convs if hidden is None else tuple(_hidden(conv, hidden) for conv in block.convs)
    experts, inner = block.experts, channels.get(_experts_name(block))
    if experts is not None and inner is not None:
        experts = replace(experts, first=_hidden(experts.first, inner), second=_hidden(experts.second, inner))
    return replace(block, convs=convs, experts=experts)


def _hidden(conv: ConvPlan, hidden: int) -> ConvPlan:
    """The layer with `hidden` units between `first` and `second`."""
    if conv.name == _HIDDEN:
        return replace(conv, outputs=hidden)
    return replace(conv, inputs=hidden) if conv.name == "second" else conv


def _experts_name(block: BlockPlan) -> str:
    return f"{block.parameters}.experts.{_HIDDEN}"


def _width(block: BlockPlan) -> int:
    """Channels that a block gives."""
    if block.kind == "tokens":
        return block.convs[0].inputs
    return block.convs[-1].outputs // SUBPIXELS if block.kind == "subpixel" else block.convs[-1].outputs
