"""The kinds of block that nets are built from: those of the CNN family, which decoders of every family are too.

A family of a package of its own brings others through the entry-point group `edgemtl.blocks`, by the name that its
plans call them: a function of the plans of all blocks that run a module, which gives that module. What a plan calls
`CONV` is the layer `CONV`, or `CONV.conv`, there; layers that the plan does not name are not pruned, nor counted.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemtl.models.nets.tokens import TOKEN_BLOCKS
from edgemtl.plugins import Registry
from edgemtl.spaces import BlockPlan, ConvPlan

__all__ = ["Subpixel", "build_block"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "relu6": nn.ReLU6, "none": nn.Identity}


def _conv(plan: ConvPlan, activation: str, norm: bool = True) -> nn.Sequential:
    """Convolution, batch normalisation, activation."""
    padding = plan.kernel // 2
    conv = nn.Conv2d(plan.inputs, plan.outputs, plan.kernel, plan.stride, padding, groups=plan.groups, bias=not norm)
    layers: list[tuple[str, nn.Module]] = [("conv", conv)]
    if norm:
        layers.append(("norm", nn.BatchNorm2d(plan.outputs)))
    if activation != "none":
        layers.append(("act", _ACTIVATIONS[activation]()))
    return nn.Sequential(OrderedDict(layers))


class ConvChain(nn.Module):
    """Convolutions in a row, the last one optionally without activation; with the input added where `residual`."""

    def __init__(self, plan: BlockPlan, linear_end: bool) -> None:
        super().__init__()
        self.residual = plan.residual
        self.names = [conv.name for conv in plan.convs]
        for conv in plan.convs:
            last = conv is plan.convs[-1]
            self.add_module(conv.name, _conv(conv, "none" if last and linear_end else plan.activation))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        y = x
        for name in self.names:
            y = getattr(self, name)(y)
        return x + y if self.residual else y


class Refinement(nn.Module):
    """A convolution, then more of which each adds to what it reads.

    So a shallower one is the beginning of a deeper one; without the sums every depth of a supernet would want something
    else of the first convolution.
    """

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.names = [conv.name for conv in plan.convs]
        for conv in plan.convs:
            self.add_module(conv.name, _conv(conv, plan.activation))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H, W)."""
        first, *others = self.names
        y: Tensor = getattr(self, first)(x)
        for name in others:
            y = y + getattr(self, name)(y)
        return y


class Pyramid(nn.Module):
    """1x1 laterals from every feature, finest first, summed from the coarsest up (feature pyramid, Lin et al. 2017)."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.names = [conv.name for conv in plan.convs]
        for conv in plan.convs:
            self.add_module(conv.name, _conv(conv, "none"))
        self.factors = [fine.height // coarse.height for fine, coarse in pairwise(plan.convs)]
        self.act = _ACTIVATIONS[plan.activation]()

    def forward(self, *features: Tensor) -> Tensor:
        """Features at strides 4, 8, 16, … (some may be left out but the first) to (N, width, H/4, W/4)."""
        laterals = [getattr(self, name)(feature) for name, feature in zip(self.names, features, strict=True)]
        y = laterals[-1]
        for lateral, factor in zip(reversed(laterals[:-1]), reversed(self.factors), strict=True):
            y = F.interpolate(y, scale_factor=float(factor), mode="nearest") + lateral
        out: Tensor = self.act(y)
        return out


class Merge(nn.Module):
    """Another path's features added to this one's: through a 1x1 convolution and enlarged, or a strided 3x3 one."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        conv = plan.convs[0]
        self.conv = _conv(conv, "none")
        self.factor = plan.enlarge

    def forward(self, other: Tensor, base: Tensor) -> Tensor:
        """(N, C, h, w) and (N, C', H, W) to (N, C', H, W)."""
        y = self.conv(other)
        if self.factor > 1:
            y = F.interpolate(y, scale_factor=float(self.factor), mode="nearest")
        out: Tensor = base + y
        return out


class Subpixel(nn.Module):
    """A 1x1 convolution to 16 values a channel, laid out as 4x4 pixels (Shi et al. 2016): 1/16 of the work."""

    factor = 4

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        self.conv = _conv(plan.convs[0], "none", norm=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H/4, W/4) to (N, channels, H, W)."""
        return F.pixel_shuffle(self.conv(x), self.factor)


class PooledLinear(nn.Module):
    """A linear layer on the input's mean over the image where it still has one."""

    def __init__(self, plan: BlockPlan, pool: bool) -> None:
        super().__init__()
        conv = plan.convs[0]
        self.pool = nn.AdaptiveAvgPool2d(1) if pool else None
        self.linear = nn.Linear(conv.inputs, conv.outputs)
        self.act = _ACTIVATIONS[plan.activation]()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) or (N, C) to (N, outputs)."""
        if self.pool is not None:
            x = torch.flatten(self.pool(x), 1)
        out: Tensor = self.act(self.linear(x))
        return out


Builder = Callable[[Sequence[BlockPlan]], nn.Module]

_BUILT_IN: dict[str, Builder] = {
    "conv": lambda plans: ConvChain(plans[0], linear_end=False),
    "depthwise": lambda plans: ConvChain(plans[0], linear_end=True),
    "fused": lambda plans: ConvChain(plans[0], linear_end=True),
    "linear": lambda plans: PooledLinear(plans[0], pool=False),
    "merge": lambda plans: Merge(plans[0]),
    "pool_linear": lambda plans: PooledLinear(plans[0], pool=True),
    "pyramid": lambda plans: Pyramid(plans[0]),
    "refinement": lambda plans: Refinement(plans[0]),
    "subpixel": lambda plans: Subpixel(plans[0]),
    **TOKEN_BLOCKS,
}
_KINDS: Registry[Builder] = Registry(
    "kind of block",
    "edgemtl.blocks",
    {kind: partial(_BUILT_IN.__getitem__, kind) for kind in _BUILT_IN},
    returns=nn.Module,
)


def build_block(plan: BlockPlan, *copies: BlockPlan) -> nn.Module:
    """The module that a block's plan describes, with fresh parameters; `copies` are other blocks that run it too.

    Raises `UserError` for a kind that neither edgemtl nor an installed package builds.
    """
    return _KINDS.call(plan.kind, (plan, *copies))
