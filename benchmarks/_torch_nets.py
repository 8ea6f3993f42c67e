"""The hundred torch layers and functions that nets for images use most, each as a net of two tasks.

`LAYERS` gives for each name a module, or a function, of features (1, 8, 16, 16); the net's other task is their mean.
Each name is a function of this module that returns the net, the same each time: `_torch_nets:conv2d`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["LAYERS", "TwoTasks"]

CHANNELS, SIDE = 8, 16
Function = Callable[[Tensor], Tensor]


class TwoTasks(nn.Module):
    """A convolution, then a layer as one task and the features' mean as another."""

    def __init__(self, layer: nn.Module | Function) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, 2, 1)
        self.layer = layer

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(1, 3, 32, 32) to both tasks."""
        features = self.stem(image)
        return {"layer": self.layer(features), "mean": features.mean((2, 3))}


class First(nn.Module):
    """The first of what a layer returns, for tokens: (1, 16, 8)."""

    def __init__(self, layer: nn.Module, inputs: int = 1) -> None:
        super().__init__()
        self.layer, self.inputs = layer, inputs

    def forward(self, features: Tensor) -> Tensor:
        """The result for as many equal inputs."""
        given = self.layer(*[tokens(features)] * self.inputs)
        return given[0] if isinstance(given, tuple) else given


class OnVector(nn.Module):
    """A layer on the features' mean (1, 8)."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: Tensor) -> Tensor:
        """The first result."""
        given = self.layer(features.mean((2, 3)))
        return given[0] if isinstance(given, tuple) else given


class Looked(nn.Module):
    """A table read at the largest channel of each position."""

    def __init__(self, table: nn.Module) -> None:
        super().__init__()
        self.table = table

    def forward(self, features: Tensor) -> Tensor:
        """(1, 256) indices to what the table has there."""
        return self.table(features.argmax(1).flatten(1))


class Unpooled(nn.Module):
    """Pooling undone by its own indices."""

    def forward(self, features: Tensor) -> Tensor:
        """The features' maxima where they were."""
        pooled, indices = F.max_pool2d(features, 2, return_indices=True)
        return F.max_unpool2d(pooled, indices, 2)


def tokens(features: Tensor) -> Tensor:
    """(1, 8, 16, 16) as 16 tokens of 8."""
    return F.avg_pool2d(features, 4).flatten(2).transpose(1, 2)


def grid(features: Tensor) -> Tensor:
    """A grid that turns the features a little."""
    turn = torch.tensor([[[0.9, 0.1, 0.0], [-0.1, 0.9, 0.0]]])
    return F.affine_grid(turn, list(features.shape), align_corners=False)


def rows(features: Tensor) -> tuple[Tensor, Tensor]:
    """Two (8, 32) halves of the features at a quarter of their size."""
    halves = F.avg_pool2d(features, 2).flatten(2)[0].chunk(2, 1)
    return halves[0], halves[1]


LAYERS: dict[str, Callable[[], nn.Module | Function]] = {
    "conv2d": lambda: nn.Conv2d(8, 4, 3),
    "conv2d_grouped": lambda: nn.Conv2d(8, 8, 3, groups=4),
    "conv2d_depthwise_dilated": lambda: nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8),
    "conv2d_same": lambda: nn.Conv2d(8, 4, 4, padding="same"),
    "conv2d_reflect": lambda: nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect"),
    "conv2d_replicate": lambda: nn.Conv2d(8, 4, 3, padding=1, padding_mode="replicate"),
    "conv2d_circular": lambda: nn.Conv2d(8, 4, 3, padding=1, padding_mode="circular"),
    "conv_transpose2d": lambda: nn.ConvTranspose2d(8, 4, 3, 2, 1, output_padding=1, groups=2),
    "conv1d": lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(8, 4, 5, 2)),
    "conv3d": lambda: nn.Sequential(nn.Unflatten(1, (2, 4)), nn.Conv3d(2, 3, 3)),
    "linear": lambda: nn.Linear(SIDE, 5),
    "batch_norm": lambda: nn.BatchNorm2d(8),
    "instance_norm": lambda: nn.InstanceNorm2d(8, affine=True),
    "group_norm": lambda: nn.GroupNorm(2, 8),
    "layer_norm": lambda: nn.LayerNorm([8, SIDE, SIDE]),
    "rms_norm": lambda: nn.RMSNorm(SIDE),
    "local_response_norm": lambda: nn.LocalResponseNorm(3),
    "relu": lambda: nn.ReLU(),
    "relu6": lambda: nn.ReLU6(),
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "prelu": lambda: nn.PReLU(8),
    "elu": lambda: nn.ELU(),
    "selu": lambda: nn.SELU(),
    "celu": lambda: nn.CELU(),
    "gelu": lambda: nn.GELU(),
    "gelu_tanh": lambda: nn.GELU("tanh"),
    "silu": lambda: nn.SiLU(),
    "mish": lambda: nn.Mish(),
    "softplus": lambda: nn.Softplus(),
    "hardswish": lambda: nn.Hardswish(),
    "hardsigmoid": lambda: nn.Hardsigmoid(),
    "hardtanh": lambda: nn.Hardtanh(),
    "tanh": lambda: nn.Tanh(),
    "sigmoid": lambda: nn.Sigmoid(),
    "logsigmoid": lambda: nn.LogSigmoid(),
    "softmax": lambda: nn.Softmax(1),
    "log_softmax": lambda: nn.LogSoftmax(1),
    "glu": lambda: nn.GLU(1),
    "max_pool2d": lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "avg_pool2d": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "adaptive_avg_pool2d": lambda: nn.AdaptiveAvgPool2d((3, 5)),
    "adaptive_max_pool2d": lambda: nn.AdaptiveMaxPool2d(4),
    "max_unpool2d": lambda: Unpooled(),
    "pixel_shuffle": lambda: nn.PixelShuffle(2),
    "pixel_unshuffle": lambda: nn.PixelUnshuffle(2),
    "channel_shuffle": lambda: nn.ChannelShuffle(2),
    "upsample_nearest": lambda: nn.Upsample(scale_factor=2),
    "upsample_bilinear": lambda: nn.Upsample((40, 24), mode="bilinear"),
    "upsample_bilinear_corners": lambda: nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
    "upsample_bicubic": lambda: nn.Upsample(scale_factor=2, mode="bicubic"),
    "interpolate_area": lambda: lambda x: F.interpolate(x, (8, 4), mode="area"),
    "interpolate_antialias": lambda: lambda x: F.interpolate(x, (8, 8), mode="bilinear", antialias=True),
    "zero_pad2d": lambda: nn.ZeroPad2d((1, 2, 3, 4)),
    "reflection_pad2d": lambda: nn.ReflectionPad2d(2),
    "replication_pad2d": lambda: nn.ReplicationPad2d(2),
    "circular_pad2d": lambda: nn.CircularPad2d(2),
    "dropout": lambda: nn.Dropout(0.5),
    "unfold": lambda: nn.Unfold(3, padding=1),
    "fold": lambda: nn.Sequential(nn.Unfold(2, stride=2), nn.Fold(SIDE, 2, stride=2)),
    "embedding": lambda: Looked(nn.Embedding(8, 5)),
    "embedding_bag": lambda: Looked(nn.EmbeddingBag(8, 5)),
    "multihead_attention": lambda: First(nn.MultiheadAttention(8, 2, batch_first=True), 3),
    "scaled_dot_product_attention": lambda: lambda x: F.scaled_dot_product_attention(*[x] * 3),
    "transformer_encoder_layer": lambda: First(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
    "transformer_decoder_layer": lambda: First(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 2),
    "rnn": lambda: First(nn.RNN(8, 6, batch_first=True)),
    "lstm": lambda: First(nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True)),
    "gru": lambda: First(nn.GRU(8, 6, batch_first=True)),
    "lstm_cell": lambda: OnVector(nn.LSTMCell(8, 6)),
    "gru_cell": lambda: OnVector(nn.GRUCell(8, 6)),
    "grid_sample": lambda: lambda x: F.grid_sample(x, grid(x), align_corners=False),
    "cosine_similarity": lambda: lambda x: F.cosine_similarity(*rows(x)),
    "normalize": lambda: lambda x: F.normalize(x, dim=1),
    "one_hot": lambda: lambda x: F.one_hot(x.argmax(1), 8).float(),
    "matmul": lambda: lambda x: x @ x.transpose(2, 3),
    "bmm": lambda: lambda x: torch.bmm(x[0], x[0]),
    "einsum": lambda: lambda x: torch.einsum("nchw,ndhw->ncd", x, x),
    "cat_split": lambda: lambda x: torch.cat(torch.split(x, [3, 5], 1)[::-1], 1),
    "stack_unbind": lambda: lambda x: torch.stack(x.unbind(1)[:3], 1),
    "permute_reshape": lambda: lambda x: x.permute(0, 2, 3, 1).reshape(1, SIDE * SIDE, 8),
    "squeeze_expand": lambda: lambda x: x.mean(1, keepdim=True).squeeze(1).unsqueeze(1).expand(-1, 3, -1, -1),
    "slices": lambda: lambda x: x[:, ::2, 1:-1, 3:],
    "roll_flip": lambda: lambda x: torch.roll(x, (1, 2), (2, 3)).flip(3),
    "repeat_interleave": lambda: lambda x: x.repeat_interleave(2, 1).repeat(1, 1, 2, 1),
    "gather": lambda: lambda x: x.gather(1, x.argmax(1, keepdim=True)),
    "scatter": lambda: lambda x: torch.zeros_like(x).scatter(1, x.argmax(1, keepdim=True), 1.0),
    "index_select": lambda: lambda x: x.index_select(1, torch.tensor([3, 0, 5])),
    "masked_fill_where": lambda: lambda x: torch.where(x > 0, x, x.masked_fill(x < -0.5, 0.5)),
    "topk": lambda: lambda x: x.flatten(1).topk(5).values,
    "sort": lambda: lambda x: x.mean((2, 3)).sort().values,
    "max_min": lambda: lambda x: x.max(1).values - x.amin(1),
    "var_std": lambda: lambda x: x.var((2, 3)) + x.std((2, 3)),
    "vector_norm": lambda: lambda x: torch.linalg.vector_norm(x, dim=1),
    "clamp_abs_sign": lambda: lambda x: x.clamp(-1, 1).abs() * x.sign(),
    "exp_log_pow": lambda: lambda x: (x.exp() + 1).log() + x.pow(2) + x.abs().sqrt(),
    "sin_cos_erf": lambda: lambda x: x.sin() + x.cos() + torch.erf(x),
    "cumsum_prod": lambda: lambda x: x.cumsum(1) + x.prod(1, keepdim=True),
    "logsumexp": lambda: lambda x: x.logsumexp(1),
    "tril_triu": lambda: lambda x: x.tril() + x.triu(1),
    "cdist": lambda: lambda x: torch.cdist(*rows(x)),
}


def _builder(name: str) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return TwoTasks(LAYERS[name]())

    return build


globals().update({name: _builder(name) for name in LAYERS})
