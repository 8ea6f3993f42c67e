"""Layers whose weights can be fitted in closed form: which these are, what they read, how many images that takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import ceil
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemtl.data import Source
from edgemtl.models import TaskNet
from edgemtl.nas.prune.cut import shared_tensors
from edgemtl.nas.prune.hooks import watched
from edgemtl.own import SelfLabelled
from edgemtl.train import batches_of

__all__ = [
    "LEAST_SIDE",
    "Layer",
    "fitted_layers",
    "fitting_images",
    "images_wanted",
    "layer_of",
    "put_weights",
    "rows_of",
    "some_of",
    "values_of",
    "weights_of",
]

PIXELS, FEWEST_PIXELS = 2**22, 2**20
"""Of all images that a layer is fitted to: at most, and where few of them would do."""
IMAGES = 16, 256, 2048
"""The least, as many as do for any small picture, the most."""
ROWS = 16_384
"""A layer is fitted to so many positions of its output at most, spread over the images."""
PER_INPUT = 4
"""It wants so many for each value that one output is made of."""
LEAST_SIDE = 0.25
"""Windows have at least this part of a picture's sides: few pictures say more then."""

Layer = nn.Conv2d | nn.Linear


def fitting_images(source: Source) -> Tensor:
    """Training images (N, 3, H, W), normalised, as many as a fit may use, the same ones each time.

    Of pictures without labels they are windows; of a data set whole images, spread over it.
    """
    count = _most(source.size)
    if isinstance(source, SelfLabelled):
        return torch.from_numpy(source.windows(count, np.random.default_rng(0), LEAST_SIDE))
    batches = batches_of(source.split("train"), 1, count)
    return torch.cat([torch.from_numpy(batch.image) for batch in batches])


def fitted_layers(net: TaskNet, image: Tensor) -> list[str]:
    """Layers that can be fitted, by their paths, in the order in which they run: those called with one tensor, once."""
    ran: list[str] = []
    several = {name for names in shared_tensors(net) for name in names}
    layers = {name: layer for name, layer in net.named_modules() if _can_be_fitted(layer)}
    alone = {name: layer for name, layer in layers.items() if f"{name}.weight" not in several}
    with watched(alone, lambda name, read, given: ran.extend([name] * len(read))), torch.no_grad():
        net(image)
    return [name for name, times in Counter(ran).items() if times == 1]


def layer_of(net: TaskNet, name: str) -> Layer:
    """The layer of this path, which can be fitted."""
    layer = net.get_submodule(name)
    assert isinstance(layer, Layer)
    return layer


def _can_be_fitted(layer: nn.Module) -> TypeGuard[Layer]:
    if isinstance(layer, nn.Conv2d):
        return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return isinstance(layer, nn.Linear)


def _most(size: tuple[int, int]) -> int:
    """How many images of a size (H, W) are used at most."""
    least, _, most = IMAGES
    return min(most, max(least, PIXELS // (size[0] * size[1])))


def images_wanted(net: TaskNet, layers: Mapping[str, Layer], images: Tensor) -> dict[str, int]:
    """How many of the images each layer is fitted to: more where it gives few positions of each."""
    least, usual, _ = IMAGES
    few = min(usual, max(least, FEWEST_PIXELS // (images.shape[2] * images.shape[3])))
    positions: dict[str, int] = {}

    def see(name: str, read: tuple[Tensor, ...], given: Tensor) -> None:
        positions[name] = len(values_of(layers[name], given))

    with watched(layers, see), torch.no_grad():
        net(images[:1])
    return {
        name: min(len(images), max(few, ceil(PER_INPUT * layer.weight[0].numel() / positions[name])))
        for name, layer in layers.items()
    }


def weights_of(layer: Layer) -> Tensor:
    """Weights and bias as a matrix in FP64, (inputs, outputs): what stands for one input are consecutive rows."""
    parts = [layer.weight.detach().flatten(1)] + ([layer.bias.detach()[:, None]] if layer.bias is not None else [])
    return torch.cat(parts, 1).T.double()


def put_weights(layer: Layer, weights: Tensor) -> None:
    """Give a layer the weights, and bias, of such a matrix."""
    made = weights.to(layer.weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(made[: layer.weight[0].numel()].T.reshape(layer.weight.shape))
        if layer.bias is not None:
            layer.bias.copy_(made[-1])


def rows_of(layer: Layer, read: Tensor) -> Tensor:
    """The values that each position of a layer's output is made of, (positions, inputs), a one last for a bias."""
    if isinstance(layer, nn.Conv2d):
        patches = functional.unfold(read, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
        rows = patches.transpose(1, 2).flatten(0, 1)
    else:
        rows = read.flatten(0, -2)
    return functional.pad(rows, (0, 1), value=1.0) if layer.bias is not None else rows


def values_of(layer: Layer, given: Tensor) -> Tensor:
    """The values that a layer gives at each position, (positions, outputs)."""
    return given.flatten(2).transpose(1, 2).flatten(0, 1) if isinstance(layer, nn.Conv2d) else given.flatten(0, -2)


def some_of(count: int, images: int) -> Tensor:
    """Which of an image's `count` positions a layer is fitted to, where there are so many images: evenly spread."""
    return torch.linspace(0, count - 1, min(count, ceil(ROWS / images))).long()
