"""A tiny vision transformer in the style of timm's, with a class and a dense head."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE = (16, 24)
PATCH, WIDTH, HEADS = 8, 16, 2
TRAINED = (4, 4)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj, self.drop = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), nn.Dropout(0.1)
        self.q_norm, self.k_norm = nn.LayerNorm(WIDTH // HEADS), nn.LayerNorm(WIDTH // HEADS)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(count, tokens, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        dropout = self.drop.p if self.training else 0.0
        x = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, dropout_p=dropout)
        return self.drop(self.proj(x.transpose(1, 2).reshape(count, tokens, width)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(WIDTH), Attention(), nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Dropout(0.1), nn.Linear(4 * WIDTH, WIDTH))
        self.scale = nn.Parameter(torch.full((WIDTH,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.scale * self.attn(self.norm1(x))
        return x + self.scale * self.mlp(self.norm2(x))


class Vit(nn.Module):
    """Positions were trained on another grid, so that they are resampled, as with `dynamic_img_size`."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.cls_token, self.reg_token = nn.Parameter(torch.randn(1, 1, WIDTH)), nn.Parameter(torch.randn(1, 2, WIDTH))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + TRAINED[0] * TRAINED[1], WIDTH))
        self.blocks, self.norm = nn.Sequential(Block(), Block()), nn.LayerNorm(WIDTH)
        self.head, self.dense = nn.Linear(WIDTH, 6), nn.Conv2d(WIDTH, 5, 1)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        prefix, old = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        old = old.reshape(1, *TRAINED, -1).permute(0, 3, 1, 2)
        new = F.interpolate(old, size=grid, mode="bicubic", antialias=True)
        return torch.cat([prefix, new.permute(0, 2, 3, 1).reshape(1, -1, WIDTH)], 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        grid = image.shape[2] // PATCH, image.shape[3] // PATCH
        x = self.proj(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.positions(grid)
        x = torch.cat([x[:, :1], self.reg_token.expand(len(x), -1, -1), x[:, 1:]], 1)
        x = self.norm(self.blocks(x))
        dense = self.dense(x[:, 3:].transpose(1, 2).reshape(len(x), WIDTH, *grid))
        return self.head(x[:, 0]), F.interpolate(dense, size=image.shape[2:], mode="bilinear")


def build() -> nn.Module:
    torch.manual_seed(0)
    return Vit()
