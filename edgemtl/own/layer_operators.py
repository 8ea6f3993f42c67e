"""Operators of ONNX with weights, as layers of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from edgemtl.own.reading import Call, Operator
from edgemtl.own.tensor_functions import prelu

__all__ = ["LAYERS", "padding_of"]

_CONVOLUTIONS: dict[int, Callable[..., nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, Callable[..., nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_INSTANCE_NORMS = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


def padding_of(call: Call, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """Padding of each axis, all beginnings before all ends, as ONNX writes it."""
    automatic, axes = call.text("auto_pad", "NOTSET"), len(kernel)
    if automatic not in ("SAME_UPPER", "SAME_LOWER"):
        return [int(value) for value in call.attributes.get("pads", [0] * 2 * axes)]
    begins, ends = [], []
    for size, window, stride, dilation in zip(call.shape()[2:], kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + (window - 1) * dilation + 1 - size)
        less, more = total // 2, total - total // 2
        begins.append(less if automatic == "SAME_UPPER" else more)
        ends.append(more if automatic == "SAME_UPPER" else less)
    return begins + ends


def _sizes(call: Call, axes: int) -> tuple[list[int], list[int]]:
    """Strides and dilations."""
    return tuple(list(call.attributes.get(name, [1] * axes)) for name in ("strides", "dilations"))  # type: ignore[return-value]


def _convolution(call: Call) -> fx.Node | None:
    weight = call.parameter(1)
    axes = len(call.shape()) - 2
    if weight is None or axes not in _CONVOLUTIONS or (call.has(2) and call.parameter(2) is None):
        return None
    (strides, dilations), kernel = _sizes(call, axes), list(weight.shape[2:])
    pads = padding_of(call, kernel, strides, dilations)
    even = pads[:axes] == pads[axes:]
    groups = int(call.attributes.get("group", 1))
    layer = _CONVOLUTIONS[axes](
        weight.shape[1] * groups,
        weight.shape[0],
        kernel,
        strides,
        pads[:axes] if even else 0,
        dilations,
        groups,
        bias=False,
    )
    _fill(layer, weight, call.parameter(2) if call.has(2) else None)
    source = None if even else call.apply(F.pad, call.source(), _as_torch(pads, axes))
    return call.layer(layer, source)


def _as_torch(pads: Sequence[int], axes: int) -> list[int]:
    """Padding as torch's `pad` has it, from the last axis on."""
    return [side for axis in reversed(range(axes)) for side in (pads[axis], pads[axes + axis])]


def _transposed(call: Call) -> fx.Node | None:
    weight = call.parameter(1)
    axes = len(call.shape()) - 2
    if weight is None or axes not in _TRANSPOSED or (call.has(2) and call.parameter(2) is None):
        return None
    (strides, dilations), kernel = _sizes(call, axes), list(weight.shape[2:])
    pads = [int(value) for value in call.attributes.get("pads", [0] * 2 * axes)]
    sizes = zip(call.shape()[2:], call.made()[2:], kernel, strides, dilations, pads, strict=False)
    more = [out - ((size - 1) * stride - 2 * pad + (window - 1) * dilation + 1)
            for size, out, window, stride, dilation, pad in sizes]  # fmt: skip
    automatic = call.text("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    if automatic or any(not 0 <= each < stride for each, stride in zip(more, strides, strict=True)):
        return None
    groups = int(call.attributes.get("group", 1))
    made = _TRANSPOSED[axes](
        weight.shape[0],
        weight.shape[1] * groups,
        kernel,
        strides,
        pads[:axes],
        more,
        groups,
        bias=False,
        dilation=dilations,
    )
    return call.layer(_fill(made, weight, call.parameter(2) if call.has(2) else None))


def _fill(layer: nn.Module, weight: nn.Parameter, bias: nn.Parameter | None) -> nn.Module:
    layer.weight = weight
    layer.bias = bias  # type: ignore[assignment]
    return layer


def _linear(weight: nn.Parameter, bias: nn.Parameter | None) -> nn.Module:
    """A linear layer of a weight (outputs, inputs)."""
    return _fill(nn.Linear(weight.shape[1], weight.shape[0], bias=False), weight, bias)


def _gemm(call: Call) -> fx.Node:
    alpha, beta = (float(call.attributes.get(name, 1.0)) for name in ("alpha", "beta"))
    turned_first, turned = (bool(call.attributes.get(name, 0)) for name in ("transA", "transB"))
    weight = call.parameter(1, transposed=not turned)
    bias = call.constant(2)
    is_row = bias is None or bias.shape == (call.made()[1],)
    if (
        weight is not None
        and alpha == beta == 1
        and not turned_first
        and is_row
        and (bias is not None or not call.has(2))
    ):
        return call.layer(_linear(weight, call.parameter(2) if bias is not None else None))
    first, second = call.source(0), call.source(1)
    first = call.apply(torch.t, first) if turned_first else first
    product = call.apply(torch.matmul, first, call.apply(torch.t, second) if turned else second)
    scaled = product if alpha == 1 else call.apply(torch.mul, product, alpha)
    if not call.has(2):
        return scaled
    added = call.operand(2, call.made())
    return call.apply(torch.add, scaled, added if beta == 1 else call.apply(torch.mul, added, beta))


def _matrix_product(call: Call) -> fx.Node:
    weights = call.constant(1)
    if weights is not None and weights.ndim == 2 and weights.dtype.kind == "f":
        weight = call.parameter(1, transposed=True)
        assert weight is not None
        return call.layer(_linear(weight, None))
    return call.apply(torch.matmul, call.source(0), call.source(1))


def _batch_norm(call: Call) -> fx.Node | None:
    """Folded into the layer before it, where nothing else reads that; else one factor and offset a channel."""
    parts = [call.constant(position) for position in range(1, 5)]
    if any(part is None for part in parts) or call.attributes.get("training_mode", 0):
        return None
    scale, offset, mean, variance = (torch.from_numpy(np.array(part, np.float32)) for part in parts)
    factor = scale / (variance + float(call.attributes.get("epsilon", 1e-5))).sqrt()
    shift = offset - mean * factor
    before = call.source()
    layer = call.reader.root.get_submodule(str(before.target)) if before.op == "call_module" else None
    if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd) and call.reader.readers[call.node.input[0]] == 1:
        _fold(layer, factor, shift)
        return before
    sides = (len(factor), *[1] * (len(call.shape()) - 2))
    name = call.node.name or call.node.output[0]
    held = [call.reader.held(f"{name}_{what}", value.reshape(sides), 0) for what, value in
            (("factor", factor), ("offset", shift))]  # fmt: skip
    return call.apply(torch.add, call.apply(torch.mul, before, held[0]), held[1])


def _fold(layer: nn.Module, factor: Tensor, shift: Tensor) -> None:
    """Multiply a layer's outputs by a factor a channel, and add an offset."""
    weight: Tensor = layer.weight.detach()  # type: ignore[operator]
    bias: Tensor | None = layer.bias  # type: ignore[assignment]
    if getattr(layer, "transposed", False):
        groups = int(layer.groups)  # type: ignore[arg-type]
        sides = (weight.shape[0] // groups, weight.shape[1], *[1] * (weight.ndim - 2))
        scaled = weight * torch.cat([part.expand(sides[0], -1).reshape(sides) for part in factor.chunk(groups)])
    else:
        scaled = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    layer.weight = nn.Parameter(scaled)
    layer.bias = nn.Parameter(shift if bias is None else bias.detach() * factor + shift)


def _instance_norm(call: Call) -> fx.Node | None:
    scale, bias = call.parameter(1), call.parameter(2)
    kind = _INSTANCE_NORMS.get(len(call.shape()))
    if scale is None or bias is None or kind is None:
        return None
    layer = kind(call.shape()[1], eps=float(call.attributes.get("epsilon", 1e-5)), affine=True)
    return call.layer(_fill(layer, scale, bias))


def _layer_norm(call: Call) -> fx.Node | None:
    scale, bias, shape = call.parameter(1), call.parameter(2), call.shape()
    axis = int(call.attributes.get("axis", -1)) % len(shape)
    if scale is None or (call.has(2) and bias is None) or tuple(scale.shape) != shape[axis:]:
        return None
    layer = nn.LayerNorm(list(scale.shape), eps=float(call.attributes.get("epsilon", 1e-5)))
    return call.layer(_fill(layer, scale, bias))


def _group_norm(call: Call) -> fx.Node | None:
    scale, bias, channels = call.parameter(1), call.parameter(2), call.shape()[1]
    if scale is None or bias is None or scale.numel() != channels:
        return None
    layer = nn.GroupNorm(int(call.attributes["num_groups"]), channels, float(call.attributes.get("epsilon", 1e-5)))
    return call.layer(_fill(layer, scale, bias))


def _prelu(call: Call) -> fx.Node:
    slope, shape = call.constant(1), call.shape()
    sides = (shape[1], *[1] * (len(shape) - 2)) if len(shape) > 1 else ()
    if slope is not None and (slope.size == 1 or slope.shape in (sides, (1, *sides))):
        layer = nn.PReLU(slope.size)
        layer.weight = nn.Parameter(torch.from_numpy(slope.astype(np.float32).reshape(-1)))
        return call.layer(layer)
    return call.apply(prelu, call.source(), call.operand(1, shape))


LAYERS: dict[str, Operator] = {
    "BatchNormalization": _batch_norm,
    "Conv": _convolution,
    "ConvTranspose": _transposed,
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "MatMul": _matrix_product,
    "PRelu": _prelu,
}
