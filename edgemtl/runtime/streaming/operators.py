"""Each operator of a traced net in NumPy and FP32: the reference executor's arithmetic.

Tensors have the shapes that they have in PyTorch: maps (N, C, H, W), tokens (N, tokens, C). Scratch memory is
bounded where that is cheap: convolutions unfold a band of rows at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

__all__ = ["OPERATORS", "Kind", "Routed"]

Array = NDArray[np.float32]
Weights = Mapping[str, Array]
Attributes = Mapping[str, Any]
Compute = Callable[[Sequence[Any], Attributes, Weights], Any]

_COLUMN_VALUES = 1 << 20
"""Values that a convolution unfolds at a time: 4 MiB."""


@dataclass(frozen=True)
class Kind:
    """An operator: its function of inputs, attributes and weights, and which of each it takes.

    `inputs` None: one or more. `optional` weights may be missing.
    """

    compute: Compute
    inputs: int | None = 1
    attributes: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


@dataclass(frozen=True)
class Routed:
    """Where a router sends tokens: for each expert its queue (numbers of tokens, in order) and their gates (n, 1)."""

    queues: tuple[NDArray[np.intp], ...]
    gates: tuple[Array, ...]


def _windows(x: Array, kernel: Sequence[int], attributes: Attributes, fill: float) -> Array:
    """A view (N, C, H', W', kernel rows, kernel columns) of the pixels under each position of a sliding kernel."""
    top, left, bottom, right = attributes["pads"]
    if top or left or bottom or right:
        x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    (down, across), (rows, columns) = attributes["strides"], attributes.get("dilations", (1, 1))
    reach = ((kernel[0] - 1) * rows + 1, (kernel[1] - 1) * columns + 1)
    view = sliding_window_view(x, reach, axis=(2, 3))
    return view[:, :, ::down, ::across, ::rows, ::columns]


def _conv(inputs: Sequence[Array], attributes: Attributes, weights: Weights) -> Array:
    weight, groups = weights["weight"], attributes["group"]
    windows = _windows(inputs[0], weight.shape[2:], attributes, 0.0)
    batch, _, height, width = windows.shape[:4]
    filters = weight.reshape(groups, len(weight) // groups, -1)
    out = np.empty((batch, groups, filters.shape[1], height, width), np.float32)
    rows = max(1, _COLUMN_VALUES // (groups * filters.shape[2] * width))
    for start in range(0, height, rows):
        band = windows[:, :, start : start + rows].transpose(0, 1, 4, 5, 2, 3)
        columns = band.reshape(batch, groups, filters.shape[2], -1)
        out[:, :, :, start : start + rows] = (filters @ columns).reshape(*out.shape[:3], -1, width)
    merged = out.reshape(batch, -1, height, width)
    if "bias" in weights:
        merged += weights["bias"][:, None, None]
    return merged


def _gemm(inputs: Sequence[Array], attributes: Attributes, weights: Weights) -> Array:
    out: Array = inputs[0] @ weights["weight"].T
    if "bias" in weights:
        out += weights["bias"]
    return out


def _batch_norm(inputs: Sequence[Array], attributes: Attributes, weights: Weights) -> Array:
    scale = weights["weight"] / np.sqrt(weights["variance"] + attributes["epsilon"])
    shift = weights["bias"] - weights["mean"] * scale
    return np.asarray(inputs[0] * scale[:, None, None] + shift[:, None, None], np.float32)


def _layer_norm(inputs: Sequence[Array], attributes: Attributes, weights: Weights) -> Array:
    centred = inputs[0] - inputs[0].mean(-1, keepdims=True)
    variance = np.square(centred).mean(-1, keepdims=True)
    centred /= np.sqrt(variance + attributes["epsilon"])
    return np.asarray(centred * weights["weight"] + weights["bias"], np.float32)


def _softmax(logits: Array) -> Array:
    """Over the last axis, in place."""
    logits -= logits.max(-1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(-1, keepdims=True)
    return logits


def _attention(inputs: Sequence[Array], attributes: Attributes, weights: Weights) -> Array:
    """Scaled dot-product attention (Vaswani et al. 2017), all heads of a head's width at once."""
    heads, width = attributes["heads"], attributes["head_width"]
    q, k, v = (x.reshape(*x.shape[:2], heads, width).swapaxes(1, 2) for x in inputs)
    mixed = _softmax((q * width**-0.5) @ k.swapaxes(2, 3)) @ v
    return np.asarray(mixed.swapaxes(1, 2).reshape(*inputs[0].shape[:2], heads * width), np.float32)


def _gelu(inputs: Sequence[Array], attributes: Attributes, weights: Weights) -> Array:
    """The exact form; erf by Hastings' approximation (1955; Abramowitz and Stegun 7.1.26), within 1.5e-7."""
    x = inputs[0]
    size = np.abs(x) * math.sqrt(0.5)
    t = 1 / (1 + 0.3275911 * size)
    tail = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    tail *= np.exp(-np.square(size))
    return np.asarray(0.5 * x * (1 + np.copysign(1 - tail, x)), np.float32)


def _router(inputs: Sequence[Array], attributes: Attributes, weights: Weights) -> Routed:
    """Softmax, then the `top_k` largest of each token, and the `expert_capacity` largest of each expert.

    All experts' queues are made before any of them runs.
    """
    flat = inputs[0].reshape(-1, inputs[0].shape[-1])
    probabilities = _softmax(flat @ weights["weight"].T + weights["bias"])
    chosen = np.argpartition(-probabilities, attributes["top_k"] - 1, axis=-1)[:, : attributes["top_k"]]
    routed = np.zeros_like(probabilities)
    np.put_along_axis(routed, chosen, np.take_along_axis(probabilities, chosen, -1), -1)
    if attributes["renormalise"]:
        routed /= routed.sum(-1, keepdims=True)
    if attributes["expert_capacity"] < len(routed):
        late = np.argsort(-routed, axis=0, kind="stable")[attributes["expert_capacity"] :]
        np.put_along_axis(routed, late, 0.0, 0)
    queues = tuple(np.flatnonzero(column > 0) for column in routed.T)
    return Routed(queues, tuple(routed[queue, index, None] for index, queue in enumerate(queues)))


def _resize(inputs: Sequence[Array], attributes: Attributes, weights: Weights) -> Array:
    factor = attributes["factor"]
    if attributes["mode"] == "nearest":
        return inputs[0].repeat(factor, 2).repeat(factor, 3)
    return _interpolate(_interpolate(inputs[0], 2, factor), 3, factor)


def _interpolate(x: Array, axis: int, factor: int) -> Array:
    """Linear, along one axis; sample points lie at half pixels, those outside at the border."""
    size = x.shape[axis]
    points = np.clip((np.arange(size * factor) + 0.5) / factor - 0.5, 0, size - 1)
    low = points.astype(np.intp)
    share = (points - low).astype(np.float32).reshape(-1, *[1] * (x.ndim - axis - 1))
    return np.asarray(x.take(low, axis) * (1 - share) + x.take(np.minimum(low + 1, size - 1), axis) * share, np.float32)


def _depth_to_space(inputs: Sequence[Array], attributes: Attributes, weights: Weights) -> Array:
    (batch, channels, height, width), side = inputs[0].shape, attributes["blocksize"]
    split = inputs[0].reshape(batch, channels // side**2, side, side, height, width)
    return split.transpose(0, 1, 4, 2, 5, 3).reshape(batch, channels // side**2, height * side, width * side)


def _max_pool(inputs: Sequence[Array], attributes: Attributes, weights: Weights) -> Array:
    return np.asarray(_windows(inputs[0], attributes["kernel_shape"], attributes, -np.inf).max((4, 5)), np.float32)


def _hard_swish(inputs: Sequence[Array], attributes: Attributes, weights: Weights) -> Array:
    return np.asarray(inputs[0] * np.clip(inputs[0] / 6 + 0.5, 0, 1), np.float32)


def _sigmoid(inputs: Sequence[Array], attributes: Attributes, weights: Weights) -> Array:
    return np.asarray(0.5 * np.tanh(0.5 * inputs[0]) + 0.5, np.float32)


def _to_map(inputs: Sequence[Array], attributes: Attributes, weights: Weights) -> Array:
    x = inputs[0].swapaxes(1, 2)
    return x.reshape(*x.shape[:2], attributes["height"], attributes["width"])


OPERATORS: dict[str, Kind] = {
    "Add": Kind(lambda x, a, w: x[0] + x[1], 2),
    "Attention": Kind(_attention, 3, ("heads", "head_width")),
    "BatchNormalization": Kind(_batch_norm, 1, ("epsilon",), ("weight", "bias", "mean", "variance")),
    "Clip": Kind(lambda x, a, w: np.clip(x[0], a["low"], a["high"]), 1, ("low", "high")),
    "Concat": Kind(lambda x, a, w: np.concatenate(x, a["axis"]), None, ("axis",)),
    "Conv": Kind(_conv, 1, ("strides", "pads", "dilations", "group"), ("weight",), ("bias",)),
    "DepthToSpace": Kind(_depth_to_space, 1, ("blocksize",)),
    "Flatten": Kind(lambda x, a, w: x[0].reshape(*x[0].shape[: a["axis"]], -1), 1, ("axis",)),
    "Gelu": Kind(_gelu),
    "Gemm": Kind(_gemm, 1, (), ("weight",), ("bias",)),
    "GlobalAveragePool": Kind(lambda x, a, w: x[0].mean((2, 3), keepdims=True)),
    "HardSwish": Kind(_hard_swish),
    "Identity": Kind(lambda x, a, w: x[0]),
    "LayerNormalization": Kind(_layer_norm, 1, ("epsilon",), ("weight", "bias")),
    "MaxPool": Kind(_max_pool, 1, ("kernel_shape", "strides", "pads")),
    "Mul": Kind(lambda x, a, w: x[0] * x[1], 2),
    "Relu": Kind(lambda x, a, w: np.maximum(x[0], 0)),
    "Resize": Kind(_resize, 1, ("factor", "mode")),
    "Router": Kind(_router, 1, ("top_k", "renormalise", "expert_capacity"), ("weight", "bias")),
    "Sigmoid": Kind(_sigmoid),
    "ToMap": Kind(_to_map, 1, ("height", "width")),
    "ToTokens": Kind(lambda x, a, w: x[0].reshape(*x[0].shape[:2], -1).swapaxes(1, 2)),
}
"""Every operator but the mixture of experts, which the executor runs expert by expert."""
