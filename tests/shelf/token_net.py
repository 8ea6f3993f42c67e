"""A vision transformer of two blocks whose tokens have 32 channels, with a label and a map."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = (16, 24)
PATCH, WIDTH, HEADS = 8, 32, 2


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, width = x.shape
        parts = self.qkv(self.norm1(x)).reshape(count, tokens, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*parts.unbind(0)).transpose(1, 2).reshape(count, tokens, width)
        x = x + self.proj(mixed)
        return x + self.mlp(self.norm2(x))


class TokenNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.blocks, self.norm = nn.Sequential(Block(), Block()), nn.LayerNorm(WIDTH)
        self.label, self.map = nn.Linear(WIDTH, 6), nn.Conv2d(WIDTH, 5, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        height, width = image.shape[2] // PATCH, image.shape[3] // PATCH
        x = self.norm(self.blocks(self.patches(image).flatten(2).transpose(1, 2)))
        planes = x.transpose(1, 2).reshape(len(x), WIDTH, height, width)
        return {"label": self.label(x.mean(1)), "map": self.map(planes)}


def build() -> nn.Module:
    torch.manual_seed(0)
    return TokenNet().eval()
