"""Weights that make up for channels that are gone, in closed form and from sums of the whole net that all cuts share.

A layer that has lost inputs gets the weights that best give, from what is left of them, what it gave of all: least
squares about its own weights (He, Zhang and Sun 2017). Of its inputs X nothing but the products XᵀX is needed, as what
it gave is XW. So a cut costs one solution a layer and no image. What layers before have lost is not made up for;
`reconstruct` does that, for the one net that is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from edgemtl.models import TaskNet
from edgemtl.nas.prune.cut import Side
from edgemtl.nas.prune.fitting import (
    Layer,
    fitted_layers,
    images_wanted,
    layer_of,
    put_weights,
    rows_of,
    some_of,
    weights_of,
)
from edgemtl.nas.prune.hooks import watched
from edgemtl.progress import Progress, Report, silent

__all__ = ["MOST_INPUTS", "RIDGE", "compensate", "input_products", "rows_kept"]

MOST_INPUTS = 4096
"""A layer each of whose outputs is made of more values stays as it is: its products would fill the memory."""
RIDGE = 1e-3
"""As a share of the mean square of what a layer reads."""


def input_products(net: TaskNet, names: Sequence[str], images: Tensor, report: Report = silent) -> dict[str, Tensor]:
    """XᵀX in FP64 (inputs, inputs) of each layer of these that can be fitted, by its path, over `images` (N, 3, H, W).

    The rows X are what positions of its output are made of; with a bias a column of ones is their last. The net is in
    evaluation mode.
    """
    layers = {name: layer_of(net, name) for name in fitted_layers(net, images[:1]) if name in names}
    layers = {name: layer for name, layer in layers.items() if layer.weight[0].numel() <= MOST_INPUTS}
    wanted = images_wanted(net, layers, images)
    sizes = {name: len(weights_of(layer)) for name, layer in layers.items()}
    products = {name: torch.zeros(size, size, dtype=torch.float64) for name, size in sizes.items()}
    total = max(wanted.values(), default=0)
    for number in range(total):
        report(Progress("products", number, total))
        waiting = {name: layer for name, layer in layers.items() if number < wanted[name]}
        for name, read in _inputs(net, waiting, images[number : number + 1]).items():
            rows = rows_of(layers[name], read)
            some = rows[some_of(len(rows), wanted[name])]
            products[name] += (some.T @ some).double()
    report(Progress("products", total, total))
    return products


def compensate(
    narrow: TaskNet, whole: TaskNet, kept: Mapping[Side, Sequence[int]], products: Mapping[str, Tensor]
) -> None:
    """Fit layers of a narrower net, in place, that have lost inputs whose `products` in the whole net are known.

    `kept` are the positions that sides of layers keep (`positions_kept`).
    """
    for name, square in products.items():
        inputs, outputs = (kept.get((name, side)) for side in ("inputs", "outputs"))
        if inputs is None:
            continue
        weights, stay = weights_of(layer_of(whole, name)), rows_kept(layer_of(whole, name), inputs)
        weights = weights if outputs is None else weights[:, list(outputs)]
        left = square[stay][:, stay]
        away = RIDGE * left.diagonal().mean().clamp(min=1e-12) * torch.eye(len(stay), dtype=left.dtype)
        put_weights(
            layer_of(narrow, name), torch.linalg.solve(left + away, square[stay] @ weights + away @ weights[stay])
        )


def rows_kept(layer: Layer, inputs: Sequence[int], *, bias: bool = True) -> Tensor:
    """The rows of a layer's matrix of weights that these inputs stand for, and with `bias` that of its bias."""
    each = layer.weight[0, 0].numel()
    rows = (torch.tensor(inputs)[:, None] * each + torch.arange(each)).flatten()
    return torch.cat([rows, torch.tensor([layer.weight[0].numel()])]) if bias and layer.bias is not None else rows


def _inputs(net: TaskNet, layers: Mapping[str, Layer], image: Tensor) -> dict[str, Tensor]:
    """The tensors that layers read as a net runs on one image."""
    seen: dict[str, Tensor] = {}

    def see(name: str, read: tuple[Tensor, ...], given: Tensor) -> None:
        seen[name] = read[0]

    with watched(layers, see), torch.no_grad():
        net(image)
    return seen
