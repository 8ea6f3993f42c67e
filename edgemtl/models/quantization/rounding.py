"""Adaptive rounding: each INT8 weight goes up or down so that its layer's output changes least (Nagel et al. 2020).

No label is needed. Where the rounding of an output channel's weights is d, in steps, its output varies by d'Cd about
its mean, C being the covariance of what the layer multiplies: a few thousand positions measure it, and no convolution
runs any more. AdaRound descends a relaxation of this by gradient. Here weights are rounded one by one, each making up
for those before (Frantar et al. 2023), and then single ones change over while that helps: sooner, and to less.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgemtl.models.graph import Node, Program, run_graph, trace_program
from edgemtl.models.nets.net import MultiTaskNet
from edgemtl.models.quantization.layers import EightBitLayer, eight_bit_layers
from edgemtl.models.quantization.plan import QuantScheme, Ranges

__all__ = ["round_weights"]

POSITIONS = 4096
"""Positions of a batch's maps that are looked at, in each layer."""
DAMPING = 0.01
"""Of the mean variance, added to each: inputs that vary together have a covariance without an inverse."""
SWEEPS = 20
WHOLE = 1e-3
"""In steps; a weight so near to a whole one stays there, above all the largest of a channel, which sets its scale."""


def round_weights(
    net: MultiTaskNet, precision: Mapping[str, str], ranges: Ranges, scheme: QuantScheme, images: Iterable[Tensor]
) -> MultiTaskNet:
    """A copy of a recalibrated net with the weights of its INT8 layers on their grids, each rounded up or down.

    Exporters and simulations round such weights to themselves, and scales stay. `images` are batches (N, 3, H, W),
    normalised; a layer that they show at fewer positions than it has inputs stays as it is. Means of outputs may move
    where a layer has a bias: `correct_biases` is to follow, with `net` as its reference.
    """
    rounded = net.copy()
    program = trace_program(rounded)
    layers = eight_bit_layers(program, precision, ranges, scheme)
    for module, calls in _by_module(rounded, program, _measured(program, layers, images)).items():
        layer, groups = calls[0].layer, int(calls[0].layer.node.attributes.get("group", 1))
        covariance = torch.stack([each.covariance() for each in calls]).sum(0)
        steps = least_change(layer.steps.reshape(groups, -1, covariance.shape[-1]), covariance, scheme.weight_limit)
        _write(module, layer, steps.view(layer.steps.shape))
    return rounded


def least_change(steps: Tensor, covariance: Tensor, limit: int) -> Tensor:
    """Weights in real steps, (groups, outputs, inputs), rounded up or down so that outputs vary least by it.

    `covariance` (groups, inputs, inputs) is the covariance of the inputs. No output varies more than by rounding to
    nearest.
    """
    nearest = steps.round().clamp_(-limit, limit)
    away = nearest + torch.sign(steps - nearest)
    free = ((steps - nearest).abs() > WHOLE) & (away.abs() <= limit)
    other = torch.where(free, away, nearest)
    chosen = _make_up(steps, nearest, other, covariance)
    chosen = _change_over(steps, chosen, nearest + other - chosen, covariance)
    better = _change(chosen - steps, covariance) < _change(nearest - steps, covariance)
    return torch.where(better[..., None], chosen, nearest)


def _make_up(steps: Tensor, nearest: Tensor, other: Tensor, covariance: Tensor) -> Tensor:
    """Rounds weights from the last to the first, each to whichever of two is nearer once it makes up for those before.

    With R the Cholesky factor of the covariance, that is what is left of R's row in weights rounded before.
    """
    damping = DAMPING * covariance.diagonal(dim1=1, dim2=2).mean(1).clamp_(min=1e-12)
    damped = covariance + damping[:, None, None] * torch.eye(covariance.shape[-1])
    factor, failed = torch.linalg.cholesky_ex(damped, upper=True)
    if failed.any():  # of a net that training broke: whoever scores it says so
        return nearest
    chosen, missing = nearest.clone(), torch.zeros_like(steps)
    for number in reversed(range(steps.shape[-1])):
        row = factor[:, number, number:]
        ahead = torch.bmm(missing[..., number + 1 :], row[:, 1:, None])[..., 0] / row[:, :1]
        wanted = steps[..., number] + ahead
        first, second = nearest[..., number], other[..., number]
        chosen[..., number] = torch.where((wanted - first).abs() <= (wanted - second).abs(), first, second)
        missing[..., number] = steps[..., number] - chosen[..., number]
    return chosen


def _change_over(steps: Tensor, chosen: Tensor, other: Tensor, covariance: Tensor) -> Tensor:
    """Takes the other whole step for one weight after another, where that is less change, until it is for none."""
    chosen, other, variance = chosen.clone(), other.clone(), covariance.diagonal(dim1=1, dim2=2)[:, None]
    gradient = torch.bmm(chosen - steps, covariance)
    for _ in range(SWEEPS):
        changed = False
        for number in range(steps.shape[-1]):
            step, own = other[..., number] - chosen[..., number], variance[..., number]
            step = step * (step * (2 * gradient[..., number] + step * own) < -1e-6 * own)
            if not step.any():
                continue
            changed = True
            gradient += step[..., None] * covariance[:, None, number]
            chosen[..., number] += step
            other[..., number] -= step
        if not changed:
            break
    return chosen


def _change(errors: Tensor, covariance: Tensor) -> Tensor:
    """How much each output (groups, outputs) varies by the errors of its weights, (groups, outputs, inputs)."""
    return (torch.bmm(errors, covariance) * errors).sum(-1)


def _measured(
    program: Program, layers: Mapping[str, Iterable[EightBitLayer]], images: Iterable[Tensor]
) -> Iterator[_Moments]:
    """The moments of what each layer multiplies; `layers` are by the tensor that they read."""
    moments = {name: [_Moments(layer) for layer in same_input] for name, same_input in layers.items()}

    def observe(name: str, value: Tensor) -> None:
        for each in moments.get(name, ()):
            each.add(value)

    for batch in images:
        run_graph(program.graph, batch, observe)
    return chain.from_iterable(moments.values())


class _Moments:
    """Sums of what a layer multiplies, (groups, inputs), and of its products, (groups, inputs, inputs)."""

    def __init__(self, layer: EightBitLayer) -> None:
        self.layer, self.count = layer, 0
        self.inputs = layer.steps[0].numel()
        self._sum, self._products = torch.zeros(()), torch.zeros(())

    def add(self, value: Tensor) -> None:
        if not value.numel():
            return  # an expert that no token of these images reached
        inputs = _inputs(self.layer.node, self.layer.rounded_input(value))
        self.count += inputs.shape[1]
        self._sum = self._sum + inputs.sum(1)
        self._products = self._products + torch.bmm(inputs.mT, inputs)

    def covariance(self) -> Tensor:
        """Covariance of the inputs; where no bias can take a mean error up, their mean products."""
        mean = self._sum / self.count
        products = self._products / self.count
        return products - mean[:, :, None] * mean[:, None, :] if "bias" in self.layer.node.constants else products


def _inputs(node: Node, value: Tensor) -> Tensor:
    """Vectors that a layer multiplies by its weights, evenly drawn positions of them: (groups, positions, inputs)."""
    if node.op != "Conv":
        vectors = value.reshape(-1, value.shape[-1])
        return vectors[:: _stride(len(vectors))][None]
    get = node.attributes
    (height, width), (down, across) = get["kernel_shape"], get["dilations"]
    rows, columns = get["pads"][:2]
    padded = F.pad(value, (columns, columns, rows, rows))
    windows = padded.unfold(2, down * (height - 1) + 1, get["strides"][0])
    windows = windows.unfold(3, across * (width - 1) + 1, get["strides"][1])[..., ::down, ::across]
    shape = windows.shape[0], *windows.shape[2:4]
    total = shape[0] * shape[1] * shape[2]
    image, row, column = torch.unravel_index(torch.arange(0, total, _stride(total)), shape)
    return windows[image, :, row, column].reshape(len(image), get["group"], -1).transpose(0, 1)


def _stride(total: int) -> int:
    """From one position to the next; an odd one visits all columns and rows, see `calibrate`."""
    return max(total // POSITIONS, 1) | 1


def _by_module(net: nn.Module, program: Program, calls: Iterable[_Moments]) -> dict[nn.Module, list[_Moments]]:
    """The calls of each module that were seen often enough to measure: one that several tasks run has several."""
    paths = {name: str(call.target) for call, name in program.operators.items()}
    modules: dict[nn.Module, list[_Moments]] = {}
    for each in calls:
        if each.count >= each.inputs:
            modules.setdefault(net.get_submodule(paths[each.layer.node.name]), []).append(each)
    return modules


def _write(module: nn.Module, layer: EightBitLayer, steps: Tensor) -> None:
    """Give a module weights that are whole steps once its normalisation, which multiplies a channel, is folded."""
    weight, folded = module.weight, layer.node.constants["weight"].flatten(1)
    assert isinstance(weight, nn.Parameter)
    with torch.no_grad():
        largest = folded.abs().argmax(1, keepdim=True)
        ratio = weight.flatten(1).gather(1, largest) / folded.gather(1, largest)
        whole = (steps * layer.scales).flatten(1) * ratio
        weight.copy_(torch.where(ratio.isfinite(), whole, weight.flatten(1)).view(weight.shape))
