"""Weights that make up for channels that are gone, layer by layer and in closed form, before any training.

Each convolution and linear layer of a narrower net learns to give what the same layer of the whole net gives, from what
it reads in the narrower one: least squares about its own weights (channel pruning, He, Zhang and Sun 2017), so that the
errors of the layers before it are made up for, too. Pictures without labels are enough. The ridge is the one that does
best on pictures that were not fitted to; where none does better than the weights as they are, these stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemtl.data import Source
from edgemtl.models import TaskNet
from edgemtl.nas.prune.cut import Side, shared_tensors
from edgemtl.own import SelfLabelled
from edgemtl.progress import Progress, Report, silent
from edgemtl.train import batches_of

__all__ = ["reconstruct", "reconstruction_images"]

PIXELS, FEWEST_PIXELS = 2**22, 2**20
"""Of all images that a layer is fitted to: at most, and where few of them would do."""
IMAGES = 16, 256, 2048
"""The least, as many as do for any small picture, the most."""
ROWS = 16_384
"""A layer is fitted to so many positions of its output at most, spread over the images."""
PER_INPUT = 4
"""It wants so many for each value that one output is made of."""
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
"""As shares of the mean square of what a layer reads."""
HELD_OUT = 4
"""Every so many-th image chooses the ridge."""

Layer = nn.Conv2d | nn.Linear


def reconstruction_images(source: Source) -> Tensor:
    """Training images (N, 3, H, W), normalised, as many as `reconstruct` may use, the same ones each time.

    Of pictures without labels they are windows; of a data set whole images, spread over it.
    """
    count = _most(source.size)
    if isinstance(source, SelfLabelled):
        return torch.from_numpy(source.windows(count, np.random.default_rng(0)))
    batches = batches_of(source.split("train"), 1, count)
    return torch.cat([torch.from_numpy(batch.image) for batch in batches])


def reconstruct(
    narrow: TaskNet, whole: TaskNet, kept: Mapping[Side, Sequence[int]], images: Tensor, report: Report = silent
) -> None:
    """Fit the layers of a narrower net, in place and in the order in which they run, to those of the whole one.

    `kept` are the positions that sides of layers keep (`positions_kept`), `images` are (N, 3, H, W), normalised. Layers
    that run several times or share their weights, grouped and transposed convolutions stay as they are, and so does
    whatever normalises: measure it anew afterwards. Both nets are in evaluation mode.
    """
    names = _fitted_layers(narrow, images[:1])
    for number, name in enumerate(names):
        report(Progress("reconstruct", number, len(names)))
        layer, model, positions = _layer(narrow, name), _layer(whole, name), kept.get((name, "outputs"))
        sums = _Sums.of(layer), _Sums.of(layer)
        chosen = images[: _wanted(layer, narrow, images)]
        for index in range(len(chosen)):
            image = chosen[index : index + 1]
            read, _ = _passing(narrow, layer, image)
            _, given = _passing(whole, model, image)
            rows, values = _rows(layer, read), _values(layer, given)
            values = values if positions is None else values[:, list(positions)]
            some = _some_of(len(rows), ceil(ROWS / len(chosen)))
            sums[index % HELD_OUT == 0].add(rows[some], values[some])
        _fit(layer, *sums)
    report(Progress("reconstruct", len(names), len(names)))


@dataclass
class _Sums:
    """Sums for least squares, of the rows X that a layer reads and the values Y that it is to give: XᵀX, XᵀY, |Y|².

    With a bias a column of ones is part of X.
    """

    bias: bool
    inputs: Tensor
    both: Tensor
    square: float = 0.0

    @classmethod
    def of(cls, layer: Layer) -> _Sums:
        weights = _weights(layer)
        return cls(layer.bias is not None, weights.new_zeros(len(weights), len(weights)), torch.zeros_like(weights))

    def add(self, rows: Tensor, values: Tensor) -> None:
        """Count in rows (N, inputs), and the values (N, outputs) that are wanted of them."""
        rows = functional.pad(rows, (0, 1), value=1.0) if self.bias else rows
        self.inputs += (rows.T @ rows).double()
        self.both += (rows.T @ values).double()
        self.square += float(values.double().square().sum())

    def error(self, weights: Tensor) -> float:
        """The sum of squared differences that weights (inputs, outputs) leave."""
        return self.square + float((weights * (self.inputs @ weights - 2 * self.both)).sum())

    def solved(self, ridge: float, weights: Tensor) -> Tensor:
        """The weights that leave the least, with a share of the mean square for each step away from `weights`."""
        away = ridge * self.inputs.diagonal().mean().clamp(min=1e-12) * torch.eye(len(weights), dtype=weights.dtype)
        made: Tensor = torch.linalg.solve(self.inputs + away, self.both + away @ weights)
        return made

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(self.bias, self.inputs + other.inputs, self.both + other.both, self.square + other.square)


def _fit(layer: Layer, fitted: _Sums, held_out: _Sums) -> None:
    """Put in the weights of the ridge that leaves least on what was held out, fitted to all; or let them be."""
    before = _weights(layer)
    left = {ridge: held_out.error(fitted.solved(ridge, before)) for ridge in RIDGES}
    ridge = min(left, key=lambda each: left[each])
    if left[ridge] < held_out.error(before):
        made = (fitted + held_out).solved(ridge, before).to(layer.weight.dtype)
        with torch.no_grad():
            layer.weight.copy_(made[: layer.weight[0].numel()].T.reshape(layer.weight.shape))
            if layer.bias is not None:
                layer.bias.copy_(made[-1])


def _weights(layer: Layer) -> Tensor:
    """Weights and bias as a matrix in FP64, (inputs, outputs)."""
    parts = [layer.weight.detach().flatten(1)] + ([layer.bias.detach()[:, None]] if layer.bias is not None else [])
    return torch.cat(parts, 1).T.double()


def _fitted_layers(net: TaskNet, image: Tensor) -> list[str]:
    """Layers that can be fitted, by their paths, in the order in which they run: those called with one tensor, once."""
    ran: list[str] = []
    several = {name for names in shared_tensors(net) for name in names}
    layers = {name: layer for name, layer in net.named_modules() if _can_be_fitted(layer)}
    hooks = [
        layer.register_forward_hook(lambda module, read, given, name=name: ran.extend([name] * len(read)))
        for name, layer in layers.items()
        if f"{name}.weight" not in several
    ]
    try:
        with torch.no_grad():
            net(image)
    finally:
        for hook in hooks:
            hook.remove()
    return [name for name, times in Counter(ran).items() if times == 1]


def _layer(net: TaskNet, name: str) -> Layer:
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


def _wanted(layer: Layer, net: TaskNet, images: Tensor) -> int:
    """How many of the images a layer is fitted to: more where it gives few positions of each."""
    least, usual, _ = IMAGES
    pixels = images.shape[2] * images.shape[3]
    _, given = _passing(net, layer, images[:1])
    positions = len(_values(layer, given))
    inputs = layer.weight[0].numel()
    few = min(usual, max(least, FEWEST_PIXELS // pixels))
    return min(len(images), max(few, ceil(PER_INPUT * inputs / positions)))


class _Reached(BaseException):
    """Ends a run at the layer that was waited for; of a kind that no net's own code catches."""


def _passing(net: TaskNet, layer: Layer, image: Tensor) -> tuple[Tensor, Tensor]:
    """The tensors that a layer reads and gives as a net runs on one image; what comes after it is not run."""
    seen: list[tuple[Tensor, Tensor]] = []

    def reach(module: nn.Module, read: tuple[Tensor, ...], given: Tensor) -> None:
        seen.append((read[0], given))
        raise _Reached

    hook = layer.register_forward_hook(reach)
    try:
        with torch.no_grad():
            net(image)
    except _Reached:
        pass
    finally:
        hook.remove()
    return seen[0]


def _rows(layer: Layer, read: Tensor) -> Tensor:
    """The values that each position of a layer's output is made of, (positions, inputs)."""
    if isinstance(layer, nn.Conv2d):
        patches = functional.unfold(read, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
        return patches.transpose(1, 2).flatten(0, 1)
    return read.flatten(0, -2)


def _values(layer: Layer, given: Tensor) -> Tensor:
    """The values that a layer gives at each position, (positions, outputs)."""
    return given.flatten(2).transpose(1, 2).flatten(0, 1) if isinstance(layer, nn.Conv2d) else given.flatten(0, -2)


def _some_of(count: int, most: int) -> Tensor:
    """At most so many of `count` positions, evenly spread."""
    return torch.linspace(0, count - 1, min(count, most)).long()
