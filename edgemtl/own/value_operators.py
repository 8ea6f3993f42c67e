"""Operators of ONNX without weights, as functions of PyTorch."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from math import floor, isclose
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onnx import helper
from torch import Tensor, fx

from edgemtl.own.layer_operators import padding_of
from edgemtl.own.reading import Call, Operator
from edgemtl.own.tensor_functions import (
    average_pool,
    broadcast,
    depth_to_space,
    hard_sigmoid,
    lp_norm,
    max_pool,
    pick,
    regroup,
    regroupings,
    softmax,
    space_to_depth,
    take,
)

__all__ = ["FUNCTIONS"]

_FAR = 1 << 31
"""Ends of slices beyond this mean the end of the axis."""


def _same(call: Call) -> fx.Node:
    return call.source()


def _unary(function: Callable[..., Tensor], **attributes: float) -> Operator:
    """A function of one tensor and of attributes, with what each is where it is not given."""

    def build(call: Call) -> fx.Node:
        values = [float(call.attributes.get(name, value)) for name, value in attributes.items()]
        return call.apply(function, call.source(), *values)

    return build


def _binary(function: Callable[..., Tensor]) -> Operator:
    """A function of two tensors, or of a tensor and a number."""

    def build(call: Call) -> fx.Node:
        shapes = call.shape(0), call.shape(1)
        return call.apply(function, call.operand(0, shapes[1]), call.operand(1, shapes[0]))

    return build


def _chained(function: Callable[..., Tensor]) -> Operator:
    """A function of two tensors, over as many as there are."""

    def build(call: Call) -> fx.Node:
        result = call.source()
        for position in range(1, len(call.node.input)):
            result = call.apply(function, result, call.source(position))
        return result

    return build


def _gelu(call: Call) -> fx.Node:
    return call.apply(F.gelu, call.source(), approximate=call.text("approximate", "none"))


def _clip(call: Call) -> fx.Node | None:
    limits = [call.attributes.get(name) for name in ("min", "max")]
    for number in (0, 1):
        if call.has(number + 1):
            value = call.constant(number + 1)
            if value is None:
                return None
            limits[number] = value.item()
    return call.apply(torch.clamp, call.source(), *limits)


def _regroup(call: Call) -> fx.Node:
    return call.apply(regroup, call.source(), regroupings(call.shape(), call.made()))


def _transpose(call: Call) -> fx.Node:
    order = call.attributes.get("perm", range(len(call.shape()))[::-1])
    return call.apply(torch.permute, call.source(), tuple(order))


def _concat(call: Call) -> fx.Node:
    axis = int(call.attributes["axis"])
    return call.apply(torch.cat, [call.source(position) for position in range(len(call.node.input))], axis)


def _split(call: Call) -> list[fx.Node]:
    axis = int(call.attributes.get("axis", 0))
    sizes = [call.made(position)[axis] for position in range(len(call.node.output))]
    parts = call.apply(torch.split, call.source(), sizes, axis)
    return [call.apply(operator.getitem, parts, number) for number in range(len(sizes))]


def _slice(call: Call) -> fx.Node | None:
    starts, ends = call.numbers("starts", 1), call.numbers("ends", 2)
    if starts is None or ends is None:
        return None
    axes = call.numbers("axes", 3) or list(range(len(starts)))
    steps = call.numbers("steps", 4) or [1] * len(starts)
    slices = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size, position = call.shape()[axis], axis % len(call.shape())
        first, last, stride = slice(start, end if abs(end) < _FAR else None if (end > 0) == (step > 0) else end,
                                    step).indices(size)  # fmt: skip
        slices.append((position, first, _FAR if (step > 0 and last == size) else last, stride))
    return call.apply(pick, call.source(), tuple(slices))


def _gather(call: Call) -> fx.Node | None:
    index, axis = call.constant(1), int(call.attributes.get("axis", 0)) % len(call.shape())
    if index is None:
        return None
    whole = index.astype(np.int64)
    positions = np.where(whole < 0, whole + call.shape()[axis], whole)
    if positions.ndim == 0:
        return call.apply(torch.select, call.source(), axis, int(positions))
    held = call.reader.held(call.node.input[1], torch.from_numpy(positions))
    return call.apply(take, call.source(), held, axis)


def _expand(call: Call) -> fx.Node:
    return call.apply(broadcast, call.source(), call.made())


def _cast(call: Call) -> fx.Node:
    kind = torch.from_numpy(np.zeros(0, helper.tensor_dtype_to_np_dtype(call.attributes["to"]))).dtype
    return call.apply(Tensor.to, call.source(), torch.float32 if kind.is_floating_point else kind)


def _where(call: Call) -> fx.Node:
    return call.apply(torch.where, call.source(0), call.operand(1, call.made()), call.operand(2, call.made()))


def _softmax(call: Call) -> fx.Node:
    logarithm, rank = call.op == "LogSoftmax", len(call.shape())
    old = call.reader.version < 13
    axis = int(call.attributes.get("axis", 1 if old else -1)) % rank
    if old and axis != rank - 1:
        return call.apply(softmax, call.source(), axis, logarithm)
    return call.apply(torch.log_softmax if logarithm else torch.softmax, call.source(), axis)


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def build(call: Call) -> fx.Node:
        axes = call.numbers("axes", 1)
        if axes is None and call.attributes.get("noop_with_empty_axes", 0):
            return call.source()
        wanted = axes or list(range(len(call.shape())))
        return call.apply(function, call.source(), tuple(wanted), bool(call.attributes.get("keepdims", 1)))

    return build


def _l1(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    return x.abs().sum(tuple(axes), keep)


def _l2(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    return x.square().sum(tuple(axes), keep).sqrt()


def _squares(x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    return x.square().sum(tuple(axes), keep)


def _argument(function: Callable[..., Tensor]) -> Operator:
    def build(call: Call) -> fx.Node | None:
        if call.attributes.get("select_last_index", 0):
            return None
        axis = int(call.attributes.get("axis", 0))
        return call.apply(function, call.source(), axis, bool(call.attributes.get("keepdims", 1)))

    return build


def _pooling(call: Call) -> tuple[list[int], list[int], list[int], list[int]]:
    """Kernel, strides, padding as torch's `pad` has it, and dilations."""
    kernel = [int(value) for value in call.attributes["kernel_shape"]]
    axes = len(kernel)
    strides, dilations = (list(call.attributes.get(name, [1] * axes)) for name in ("strides", "dilations"))
    pads = padding_of(call, kernel, strides, dilations)
    return (
        kernel,
        strides,
        [pads[position] for axis in reversed(range(axes)) for position in (axis, axes + axis)],
        dilations,
    )


def _max_pool(call: Call) -> fx.Node | None:
    if len(call.node.output) > 1:
        return None
    return call.apply(max_pool, call.source(), *_pooling(call), bool(call.attributes.get("ceil_mode", 0)))


def _average_pool(call: Call) -> fx.Node | None:
    kernel, strides, pads, dilations = _pooling(call)
    if any(dilation != 1 for dilation in dilations):
        return None
    flags = (bool(call.attributes.get(name, 0)) for name in ("ceil_mode", "count_include_pad"))
    return call.apply(average_pool, call.source(), kernel, strides, pads, *flags)


def _global_pool(function: Callable[..., Tensor]) -> Operator:
    def build(call: Call) -> fx.Node:
        return call.apply(function, call.source(), tuple(range(2, len(call.shape()))), True)

    return build


def _pad(call: Call) -> fx.Node | None:
    pads, rank = call.numbers("pads", 1), len(call.shape())
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}.get(call.text("mode", "constant"))
    if pads is None or mode is None:
        return None
    axes = [axis % rank for axis in call.numbers("axes", 3) or range(rank)]
    sides = {axis: (pads[number], pads[number + len(axes)]) for number, axis in enumerate(axes)}
    first = min((axis for axis, both in sides.items() if any(both)), default=rank)
    turned = [side for axis in reversed(range(first, rank)) for side in sides.get(axis, (0, 0))]
    if mode != "constant":
        return call.apply(F.pad, call.source(), turned, mode) if first >= 2 else None
    value = call.constant(2) if call.has(2) else call.attributes.get("value", 0.0)
    return call.apply(F.pad, call.source(), turned, mode, float(np.asarray(value).item()))


def _resize(call: Call) -> fx.Node | None:
    before, after = call.shape(), call.made()
    mode = call.text("mode", "nearest")
    way = call.text("coordinate_transformation_mode", "half_pixel" if call.op == "Resize" and call.reader.version > 10
                    else "asymmetric")  # fmt: skip
    if before[:2] != after[:2] or len(before) != 4 or call.attributes.get("antialias", 0):
        return _same(call) if before == after else None
    if mode == "nearest":
        return _nearest(call, way)
    cubic = mode == "cubic" and isclose(float(call.attributes.get("cubic_coeff_a", -0.75)), -0.75, abs_tol=1e-6)
    kind = "bilinear" if mode == "linear" else "bicubic" if cubic else None
    if kind is None or way not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        return None
    return call.apply(F.interpolate, call.source(), after[2:], None, kind, way == "align_corners")


def _nearest(call: Call, way: str) -> fx.Node | None:
    rounding = call.text("nearest_mode", "round_prefer_floor" if call.op == "Resize" and call.reader.version > 10
                         else "floor")  # fmt: skip
    tables = [_rows(size, out, way, rounding) for size, out in zip(call.shape()[2:], call.made()[2:], strict=True)]
    if any(table is None for table in tables):
        return None
    plain = [[floor(position * size / out) for position in range(out)]
             for size, out in zip(call.shape()[2:], call.made()[2:], strict=True)]  # fmt: skip
    if tables == plain:
        return call.apply(F.interpolate, call.source(), call.made()[2:], None, "nearest")
    result = call.source()
    for axis, table in enumerate(tables, 2):
        held = call.reader.held(f"{call.node.output[0]}_{'rows' if axis == 2 else 'columns'}", torch.tensor(table))
        result = call.apply(take, result, held, axis)
    return result


def _rows(size: int, out: int, way: str, rounding: str) -> list[int] | None:
    """For each position of a resized axis the one that it is of."""
    scale = out / size
    position: Callable[[int], float] | None = {
        "asymmetric": lambda number: number / scale,
        "half_pixel": lambda number: (number + 0.5) / scale - 0.5,
        "pytorch_half_pixel": lambda number: (number + 0.5) / scale - 0.5 if out > 1 else 0.0,
        "align_corners": lambda number: number * (size - 1) / max(1, out - 1),
    }.get(way)
    nearest: Callable[[float], int] | None = {
        "floor": lambda value: int(np.floor(value)),
        "ceil": lambda value: int(np.ceil(value)),
        "round_prefer_floor": lambda value: int(np.ceil(value - 0.5)),
        "round_prefer_ceil": lambda value: int(np.floor(value + 0.5)),
    }.get(rounding)
    if position is None or nearest is None:
        return None
    return [min(max(nearest(position(number)), 0), size - 1) for number in range(out)]


def _depth_to_space(call: Call) -> fx.Node:
    first = call.text("mode", "DCR") == "DCR"
    return call.apply(depth_to_space, call.source(), int(call.attributes["blocksize"]), first)


def _space_to_depth(call: Call) -> fx.Node:
    return call.apply(space_to_depth, call.source(), int(call.attributes["blocksize"]))


def _lp_norm(call: Call) -> fx.Node:
    return call.apply(lp_norm, call.source(), int(call.attributes.get("axis", -1)), int(call.attributes.get("p", 2)))


def _einsum(call: Call) -> fx.Node:
    sources = [call.source(position) for position in range(len(call.node.input))]
    return call.apply(torch.einsum, call.text("equation", ""), *sources)


def _tile(call: Call) -> fx.Node | None:
    repeats = call.numbers("repeats", 1)
    return None if repeats is None else call.apply(torch.tile, call.source(), tuple(repeats))


_ONE: dict[str, Any] = {
    "Abs": torch.abs, "Ceil": torch.ceil, "Cos": torch.cos, "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor,
    "HardSwish": F.hardswish, "Log": torch.log, "Mish": F.mish, "Neg": torch.neg, "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal, "Relu": torch.relu, "Round": torch.round, "Sigmoid": torch.sigmoid,
    "Sign": torch.sign, "Sin": torch.sin, "Softplus": F.softplus, "Softsign": F.softsign, "Sqrt": torch.sqrt,
    "Tanh": torch.tanh,
}  # fmt: skip
_TWO: dict[str, Any] = {
    "Add": operator.add, "And": torch.logical_and, "Div": operator.truediv, "Equal": operator.eq,
    "Greater": operator.gt, "GreaterOrEqual": operator.ge, "Less": operator.lt, "LessOrEqual": operator.le,
    "Mul": operator.mul, "Or": torch.logical_or, "Pow": operator.pow, "Sub": operator.sub,
}  # fmt: skip
_REDUCED: dict[str, Any] = {
    "ReduceL1": _l1, "ReduceL2": _l2, "ReduceLogSumExp": torch.logsumexp, "ReduceMax": torch.amax,
    "ReduceMean": torch.mean, "ReduceMin": torch.amin, "ReduceSum": torch.sum, "ReduceSumSquare": _squares,
}  # fmt: skip

FUNCTIONS: dict[str, Operator] = {
    **{name: _unary(function) for name, function in _ONE.items()},
    **{name: _binary(function) for name, function in _TWO.items()},
    **{name: _reduce(function) for name, function in _REDUCED.items()},
    "ArgMax": _argument(torch.argmax),
    "ArgMin": _argument(torch.argmin),
    "AveragePool": _average_pool,
    "Cast": _cast,
    "Celu": _unary(F.celu, alpha=1.0),
    "Clip": _clip,
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Dropout": _same,
    "Einsum": _einsum,
    "Elu": _unary(F.elu, alpha=1.0),
    "Expand": _expand,
    "Flatten": _regroup,
    "Gather": _gather,
    "Gelu": _gelu,
    "GlobalAveragePool": _global_pool(torch.mean),
    "GlobalMaxPool": _global_pool(torch.amax),
    "HardSigmoid": _unary(hard_sigmoid, alpha=0.2, beta=0.5),
    "Identity": _same,
    "LeakyRelu": _unary(F.leaky_relu, alpha=0.01),
    "LogSoftmax": _softmax,
    "LpNormalization": _lp_norm,
    "Max": _chained(torch.maximum),
    "MaxPool": _max_pool,
    "Min": _chained(torch.minimum),
    "Pad": _pad,
    "Reshape": _regroup,
    "Resize": _resize,
    "Selu": _unary(F.selu),
    "Slice": _slice,
    "Softmax": _softmax,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _regroup,
    "Sum": _chained(torch.add),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _regroup,
    "Upsample": _resize,
    "Where": _where,
}
"""By type; `_same` where the operator changes nothing once a net is no longer trained."""
