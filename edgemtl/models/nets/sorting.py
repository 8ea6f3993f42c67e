"""Importance sorting: every elastic width keeps the most important channels, because they come first.

A narrow design takes prefixes, so the order of channels decides what it keeps. As in Once-for-all (Cai et al. 2020),
channels are sorted by the L1 norm of the weights that consume them (batch normalisation makes the norm of the weights
that produce them meaningless). Which channels belong together is read off the plans: a residual addition, a depthwise
convolution, a sum of laterals and every convolution that reads another's output tie their channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from edgemtl.models.nets.supernet import Supernet
from edgemtl.spaces import Plan

__all__ = ["sort_channels"]

Side = tuple[str, int]
"""A convolution, and which of its channels: 0 its outputs, 1 its inputs. A depthwise one has the former only."""

_FIXED: Side = ("", 0)
"""The image's channels and the tasks' outputs mean something, tokens go through heads: they stay in place."""


def sort_channels(supernet: Supernet) -> None:
    """Reorder the supernet's channels, most important first, wherever they are produced or consumed.

    What designs of full widths and expansions compute does not change, whatever their depths, kernels and block types;
    what narrower ones compute does, so sort before they are trained. An optimizer's state does not follow.
    """
    table = supernet.shared
    with torch.no_grad():
        for group in _groups(supernet.envelopes):
            sizes = {side: _weight(table, side[0]).shape[side[1]] for side in group - {_FIXED}}
            consumers = [_weight(table, name) for name, axis in sizes if axis == 1]
            if _FIXED not in group and consumers:
                order = _order(_importance(consumers, max(sizes.values())), sorted(set(sizes.values())))
                for side, size in sizes.items():
                    _reorder(table, side, order[:size])


def _importance(consumers: Iterable[Tensor], channels: int) -> Tensor:
    """L1 norm of each input channel's weights; every consumer counts the same, as normalisation follows each."""
    norms = [weight.abs().transpose(0, 1).flatten(1).sum(1) for weight in consumers]
    shares = [norm / norm.mean().clamp(min=1e-12) for norm in norms]
    return torch.stack([F.pad(share, (0, channels - len(share))) for share in shares]).sum(0)


def _order(importance: Tensor, sizes: Sequence[int]) -> Tensor:
    """Most important first, in each part between two sizes alone.

    Sizes differ where an expansion may be 1: the input's channels are then the first ones of the hidden channels.
    """
    parts = pairwise((0, *sizes))
    return torch.cat([start + importance[start:end].argsort(descending=True, stable=True) for start, end in parts])


def _weight(table: Mapping[str, Tensor], name: str) -> Tensor:
    """The weight of a convolution, or of a linear layer, which lies one level higher."""
    return table[f"{name}.conv.weight" if f"{name}.conv.weight" in table else f"{name}.weight"]


def _reorder(table: Mapping[str, Tensor], side: Side, order: Tensor) -> None:
    name, axis = side
    touched = [_weight(table, name)] if axis == 1 else [p for key, p in table.items() if key.startswith(f"{name}.")]
    for parameter in touched:
        parameter.copy_(parameter.index_select(axis, order))


def _groups(plans: Iterable[Plan]) -> list[set[Side]]:
    """Sides whose channels are the same ones in some design, and so must keep one order."""
    group_of: dict[Side, set[Side]] = {}
    for plan in plans:
        for first, second in _ties(plan):
            merged = group_of.get(first, {first}) | group_of.get(second, {second})
            group_of |= dict.fromkeys(merged, merged)
    return list({id(group): group for group in group_of.values()}.values())


def _ties(plan: Plan) -> Iterator[tuple[Side, Side]]:
    """Pairs of sides that one net ties."""
    end: dict[str, Side] = {"image": _FIXED}
    for block in plan.blocks:
        if block.heads:
            yield end[block.inputs[0]], _FIXED
            end[block.name] = _FIXED
            continue
        names = [f"blocks.{block.origin}.{conv.name}" for conv in block.convs]
        outputs = [(name, 0) for name in names]
        inputs = [(name, 1 if conv.groups == 1 else 0) for name, conv in zip(names, block.convs, strict=True)]
        sources = [end[source] for source in block.inputs]
        yield from zip(inputs, sources if block.parallel else [sources[0], *outputs], strict=False)
        if block.parallel:
            yield from ((output, outputs[-1]) for output in outputs)
        if block.residual:
            yield outputs[-1], sources[-1]
        yield from pairwise(
            output for conv, output in zip(block.convs, outputs, strict=True) if conv.name in block.tied
        )
        end[block.name] = outputs[-1]
    yield from ((end[block.name], _FIXED) for block in plan.blocks if block.output)
