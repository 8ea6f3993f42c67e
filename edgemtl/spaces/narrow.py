"""A plan with fewer channels: what pruning leaves of a net, as data.

Only output channels of convolutions are given; the next one's inputs follow from the blocks' wiring, so that
no table of channels can contradict itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from edgemtl.errors import UserError, unknown_name
from edgemtl.spaces.plan import BlockPlan, ConvPlan, ExpertsPlan, Plan

__all__ = ["prunable_channels", "with_channels"]

IMAGE_CHANNELS = 3
_HIDDEN = "first"
_ATTENTION = "attention"
_READ_TOKENS = ("queries", "keys", "values")


def prunable_channels(plan: Plan) -> dict[str, int]:
    """Output channels of everything that may get fewer, by `BLOCK.CONVOLUTION`.

    In transformers these are `patches.proj`, the width of all tokens; `BLOCK.attention`, the channels of all heads
    together, of which whole heads can go; and the hidden units `BLOCK.first` or `BLOCK.experts.first`. Left out are
    what a task's output means, and what depthwise convolutions and sub-pixel steps give (it follows from what they
    read).
    """
    ends = plan.ends
    return {
        f"{block.parameters}.{name}": channels
        for block in plan.blocks
        if block.origin not in ends
        for name, channels in _prunable(block)
    }


def _prunable(block: BlockPlan) -> Iterator[tuple[str, int]]:
    if block.heads:
        yield _ATTENTION, block.convs[0].outputs
        hidden = {conv.name: conv.outputs for conv in block.convs if conv.name == _HIDDEN}
        yield from hidden.items()
        if block.experts is not None:
            yield f"experts.{_HIDDEN}", block.experts.first.outputs
    elif block.shuffle == 1:
        yield from ((conv.name, conv.outputs) for conv in block.convs if conv.groups == 1)


def with_channels(plan: Plan, channels: Mapping[str, int]) -> Plan:
    """The plan with `channels` outputs for convolutions, by the names of `prunable_channels`; others are unchanged.

    Raises `UserError` for an unknown name, a count below 1 or above the plan's, a part of an attention head, and for
    sums of unequal widths.
    """
    prunable = prunable_channels(plan)
    for name, count in channels.items():
        if name not in prunable:
            raise unknown_name("prunable convolution", name, prunable)
        if not 1 <= count <= prunable[name]:
            raise UserError(f"{name} cannot have {count} channels: 1 to {prunable[name]} are possible")
    width, blocks = {"image": IMAGE_CHANNELS}, []
    for block in plan.blocks:
        made = _narrow_block(block, [width[source] for source in block.inputs], channels)
        blocks.append(made)
        width[block.name] = made.channels
    return Plan(plan.input_size, tuple(blocks))


def _narrow_block(block: BlockPlan, inputs: Sequence[int], channels: Mapping[str, int]) -> BlockPlan:
    if block.heads:
        return _narrow_tokens(block, inputs[0], channels)
    convs = list[ConvPlan]()
    for number, conv in enumerate(block.convs):
        reads = inputs[number] if block.parallel else convs[-1].outputs if convs else inputs[0]
        depthwise = conv.groups > 1
        gives = reads if depthwise else channels.get(f"{block.parameters}.{conv.name}", conv.outputs)
        convs.append(replace(conv, inputs=reads, outputs=gives, groups=reads if depthwise else 1))
    for widths in _tied_widths(block, convs, inputs):
        if len(set(widths)) > 1:
            raise UserError(
                f"block {block.name} adds tensors of {' and '.join(map(str, widths))} channels: make them equal"
            )
    return replace(block, convs=tuple(convs), others=_others(block, inputs[0]))


def _tied_widths(block: BlockPlan, convs: Sequence[ConvPlan], inputs: Sequence[int]) -> Iterator[list[int]]:
    """Channels of tensors that are added or multiplied."""
    if block.parallel:
        yield [conv.outputs for conv in convs]
    if block.residual:
        yield [inputs[-1], convs[-1].outputs]
    yield [conv.outputs for conv in convs if conv.name in block.tied]


def _narrow_tokens(block: BlockPlan, width: int, channels: Mapping[str, int]) -> BlockPlan:
    """The transformer block with tokens of `width` as input and output."""
    whole = block.convs[0].outputs
    head_width, inner = whole // block.heads, channels.get(f"{block.parameters}.{_ATTENTION}", whole)
    if inner % head_width:
        raise UserError(f"{block.parameters}.{_ATTENTION} cannot have {inner} channels: a head has {head_width}")
    hidden = channels.get(f"{block.parameters}.{_HIDDEN}")
    convs = []
    for conv in block.convs:
        if conv.name in _READ_TOKENS:
            convs.append(replace(conv, inputs=width, outputs=inner))
        elif conv.name == "proj":
            convs.append(replace(conv, inputs=inner, outputs=width))
        else:
            convs.append(_linear(conv, width, hidden))
    experts = block.experts and _narrow_experts(
        block.experts, width, channels.get(f"{block.parameters}.experts.{_HIDDEN}")
    )
    heads = inner // head_width
    return replace(block, convs=tuple(convs), heads=heads, others=_others(block, width), experts=experts)


def _narrow_experts(experts: ExpertsPlan, width: int, hidden: int | None) -> ExpertsPlan:
    first, second = _linear(experts.first, width, hidden), _linear(experts.second, width, hidden)
    return replace(experts, router=replace(experts.router, inputs=width), first=first, second=second)


def _linear(conv: ConvPlan, width: int, hidden: int | None) -> ConvPlan:
    """A layer of an MLP with `width` inputs and outputs, and `hidden` units (None: unchanged) inside."""
    if conv.name == _HIDDEN:
        return replace(conv, inputs=width, outputs=hidden or conv.outputs)
    return replace(conv, inputs=hidden or conv.inputs, outputs=width)


def _others(block: BlockPlan, width: int) -> int:
    """Parameters of layer norms, so many for each channel that is read."""
    return block.others // block.convs[0].inputs * width
