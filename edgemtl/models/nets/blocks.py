"""The few kinds of block that nets are built from: those of the CNN family, which decoders of every family are too."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgemtl.models.nets.tokens import TOKEN_BLOCKS
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


def build_block(plan: BlockPlan, *copies: BlockPlan) -> nn.Module:
    """The module that a block's plan describes, with fresh parameters; `copies` are other blocks that run it too."""
    if plan.kind == "pyramid":
        return Pyramid(plan)
    if plan.kind == "merge":
        return Merge(plan)
    if plan.kind == "subpixel":
        return Subpixel(plan)
    if plan.kind in ("pool_linear", "linear"):
        return PooledLinear(plan, pool=plan.kind == "pool_linear")
    if plan.kind in TOKEN_BLOCKS:
        return TOKEN_BLOCKS[plan.kind]((plan, *copies))
    return ConvChain(plan, linear_end=plan.kind in ("fused", "depthwise"))
