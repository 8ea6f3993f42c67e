"""Weights that make up for channels that are gone, layer by layer and in closed form, before any training.

Each convolution and linear layer of a narrower net learns to give what the same layer of the whole net gives, from what
it reads in the narrower one: least squares about its own weights (channel pruning, He, Zhang and Sun 2017), so that the
errors of the layers before it are made up for, too. Pictures without labels are enough. The ridge is the one that does
best on pictures that were not fitted to; where none does better than the weights as they are, these stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

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
    values_of,
    weights_of,
)
from edgemtl.nas.prune.hooks import watched
from edgemtl.progress import Progress, Report, silent

__all__ = ["reconstruct"]

RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)
"""As shares of the mean square of what a layer reads."""
HELD_OUT = 4
"""Every so many-th image chooses the ridge."""


def reconstruct(
    narrow: TaskNet, whole: TaskNet, kept: Mapping[Side, Sequence[int]], images: Tensor, report: Report = silent
) -> None:
    """Fit the layers of a narrower net, in place and in the order in which they run, to those of the whole one.

    `kept` are the positions that sides of layers keep (`positions_kept`), `images` are (N, 3, H, W), normalised. Layers
    that run several times or share their weights, grouped and transposed convolutions stay as they are, and so does
    whatever normalises: measure it anew afterwards. Both nets are in evaluation mode.
    """
    names = fitted_layers(narrow, images[:1])
    wanted = images_wanted(narrow, {name: layer_of(narrow, name) for name in names}, images)
    for number, name in enumerate(names):
        report(Progress("reconstruct", number, len(names)))
        layer, model, positions = layer_of(narrow, name), layer_of(whole, name), kept.get((name, "outputs"))
        sums = _Sums.of(layer), _Sums.of(layer)
        for index in range(wanted[name]):
            image = images[index : index + 1]
            read, _ = _passing(narrow, layer, image)
            _, given = _passing(whole, model, image)
            rows, values = rows_of(layer, read), values_of(layer, given)
            values = values if positions is None else values[:, list(positions)]
            some = some_of(len(rows), wanted[name])
            sums[index % HELD_OUT == 0].add(rows[some], values[some])
        _fit(layer, *sums)
    report(Progress("reconstruct", len(names), len(names)))


@dataclass
class _Sums:
    """Sums for least squares, of the rows X that a layer reads and the values Y that it is to give: XᵀX, XᵀY, |Y|²."""

    inputs: Tensor
    both: Tensor
    square: float = 0.0

    @classmethod
    def of(cls, layer: Layer) -> _Sums:
        weights = weights_of(layer)
        return cls(weights.new_zeros(len(weights), len(weights)), torch.zeros_like(weights))

    def add(self, rows: Tensor, values: Tensor) -> None:
        """Count in rows (N, inputs), and the values (N, outputs) that are wanted of them."""
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
        return _Sums(self.inputs + other.inputs, self.both + other.both, self.square + other.square)


def _fit(layer: Layer, fitted: _Sums, held_out: _Sums) -> None:
    """Put in the weights of the ridge that leaves least on what was held out, fitted to all; or let them be."""
    before = weights_of(layer)
    left = {ridge: held_out.error(fitted.solved(ridge, before)) for ridge in RIDGES}
    ridge = min(left, key=lambda each: left[each])
    if left[ridge] < held_out.error(before):
        put_weights(layer, (fitted + held_out).solved(ridge, before))


class _Reached(BaseException):
    """Ends a run at the layer that was waited for; of a kind that no net's own code catches."""


def _passing(net: TaskNet, layer: Layer, image: Tensor) -> tuple[Tensor, Tensor]:
    """The tensors that a layer reads and gives as a net runs on one image; what comes after it is not run."""
    seen: list[tuple[Tensor, Tensor]] = []

    def reach(name: str, read: tuple[Tensor, ...], given: Tensor) -> None:
        seen.append((read[0], given))
        raise _Reached

    with suppress(_Reached), watched({"": layer}, reach), torch.no_grad():
        net(image)
    return seen[0]
