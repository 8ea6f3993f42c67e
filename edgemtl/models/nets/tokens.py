"""The blocks of a vision transformer: tokens, attention, MLP or mixture of experts, and the way back to a map."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from edgemtl.models.nets.experts import Experts
from edgemtl.spaces import BlockPlan

__all__ = ["TOKEN_BLOCKS", "Attention", "Patches", "ToMap", "ToTokens", "TokenBlock", "TokenMap"]

_NORM_EPSILON = 1e-6


class ToTokens(nn.Module):
    """(N, C, H, W) to (N, H W, C); `tokens` is H W at the net's own input size."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens

    def forward(self, x: Tensor) -> Tensor:
        """Row by row."""
        return x.flatten(2).transpose(1, 2)


class ToMap(nn.Module):
    """(N, H W, C) to (N, C, H, W), where H and W have about the ratio of `height` and `width`."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, x: Tensor) -> Tensor:
        """Row by row; training sees other sizes than the net's own, of about its shape."""
        tokens, wanted = x.shape[1], (x.shape[1] * self.height / self.width) ** 0.5
        height = min((h for h in range(1, tokens + 1) if tokens % h == 0), key=lambda h: abs(h - wanted))
        return x.transpose(1, 2).reshape(len(x), x.shape[2], height, tokens // height)


class Attention(nn.Module):
    """Scaled dot-product attention of `heads` heads (Vaswani et al. 2017) on projected queries, keys and values."""

    def __init__(self, heads: int, head_width: int) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Three times (N, tokens, heads x C) to the same."""
        q, k, v = (x.view(*x.shape[:2], self.heads, -1).transpose(1, 2) for x in (queries, keys, values))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Patches(nn.Module):
    """An image or a feature map cut into squares, each a token, with a position encoding from its neighbours.

    The encoding is an added depthwise convolution (conditional positional encoding, Chu et al. 2021): unlike
    learned positions it fits every input size.
    """

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        proj, position = plan.convs
        self.proj = nn.Conv2d(proj.inputs, proj.outputs, proj.kernel, proj.stride)
        self.position = nn.Conv2d(
            position.inputs, position.outputs, position.kernel, padding=position.kernel // 2, groups=position.groups
        )
        self.tokens = ToTokens(proj.height * proj.width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, tokens, width)."""
        y = self.proj(x)
        out: Tensor = self.tokens(y + self.position(y))
        return out


class TokenBlock(nn.Module):
    """Attention, then an MLP or a mixture of experts; each normalised before and added to what came in (pre-norm)."""

    def __init__(self, plans: Sequence[BlockPlan]) -> None:
        super().__init__()
        plan = plans[0]
        linear = {conv.name: nn.Linear(conv.inputs, conv.outputs) for conv in plan.convs}
        self.norm1 = nn.LayerNorm(plan.convs[0].inputs, _NORM_EPSILON)
        self.queries, self.keys, self.values = linear["queries"], linear["keys"], linear["values"]
        self.attention, self.proj = Attention(plan.heads, plan.convs[0].outputs // plan.heads), linear["proj"]
        self.norm2 = nn.LayerNorm(plan.convs[0].inputs, _NORM_EPSILON)
        self.mixture = Experts([p.experts for p in plans if p.experts]) if plan.experts else None
        if self.mixture is None:
            self.first, self.act, self.second = linear["first"], nn.GELU(), linear["second"]

    def forward(self, x: Tensor, router: str | None = None) -> Tensor:
        """(N, tokens, width) to the same; `router` names whose experts are meant where the block has any."""
        y = self.norm1(x)
        x = x + self.proj(self.attention(self.queries(y), self.keys(y), self.values(y)))
        y = self.norm2(x)
        out: Tensor
        if self.mixture is not None and router is not None:
            out = x + self.mixture(y, router)
        else:
            out = x + self.second(self.act(self.first(y)))
        return out


class TokenMap(nn.Module):
    """The last normalisation, tokens laid out as a map, and a 1x1 convolution there."""

    def __init__(self, plan: BlockPlan) -> None:
        super().__init__()
        conv = plan.convs[0]
        self.norm = nn.LayerNorm(conv.inputs, _NORM_EPSILON)
        self.map = ToMap(conv.height, conv.width)
        self.conv = nn.Conv2d(conv.inputs, conv.outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, width) to (N, width, H, W)."""
        out: Tensor = self.conv(self.map(self.norm(x)))
        return out


TOKEN_BLOCKS: dict[str, Callable[[Sequence[BlockPlan]], nn.Module]] = {
    "patches": lambda plans: Patches(plans[0]),
    "tokens": TokenBlock,
    "map": lambda plans: TokenMap(plans[0]),
}
"""Kinds of block, and how each is made from the plans of all blocks that run it."""
