"""Inputs of a net: the one that is an image, in colour or grey, and those that become constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgemtl.errors import UserError

__all__ = ["GREY", "Constants", "Layout", "constant_tensors", "image_and_others", "image_sides"]

Layout = Literal["NCHW", "NHWC"]
Constants = Mapping[str, Sequence[float]]
"""Values of a net's inputs that are no image, in the order of their elements."""
GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in what a grey net reads (ITU-R BT.601)."""
_CHANNELS = 3
_MOST_VALUES = 10_000
_KINDS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.UINT8,
    onnx.TensorProto.INT32,
)


def image_and_others(graph: onnx.GraphProto, name: str) -> tuple[onnx.ValueInfoProto, list[onnx.ValueInfoProto]]:
    """The input of a net, called `name` in errors, that is an image: the first of four axes; and the other inputs."""
    initial = {tensor.name for tensor in graph.initializer}
    inputs = [info for info in graph.input if info.name not in initial]
    if not inputs:
        raise UserError(f"{name} reads no input: a net that reads one image is wanted")
    image = next((info for info in inputs if len(info.type.tensor_type.shape.dim) == 4), inputs[0])
    return image, [info for info in inputs if info is not image]


def constant_tensors(
    inputs: Sequence[onnx.ValueInfoProto], constants: Constants | None, name: str
) -> dict[str, onnx.TensorProto]:
    """The tensor that each input becomes, of ones where `constants` is None; open sizes are 1.

    Raises `UserError` for values that are too few or too many, and for an input that is too large for a constant.
    """
    names = [info.name for info in inputs]
    if unknown := [given for given in constants or () if given not in names]:
        allowed = ", ".join(names) or "none"
        raise UserError(f"constants of the tasks file: {unknown[0]} is no input of {name} beside its image ({allowed})")
    return {info.name: _constant(info, constants, name) for info in inputs}


def _constant(info: onnx.ValueInfoProto, constants: Constants | None, name: str) -> onnx.TensorProto:
    kind = info.type.tensor_type
    shape = tuple(max(side.dim_value, 1) for side in kind.shape.dim)
    count, text = prod(shape), "x".join(map(str, shape)) or "one value"
    if count > _MOST_VALUES or kind.elem_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        raise UserError(
            f"{name} reads {info.name} ({text}) beside its image: a bundle reads one image, and another input can only "
            f"be at most {_MOST_VALUES} numbers that never change"
        )
    values = [1.0] * count if constants is None else constants.get(info.name, ())
    if len(values) != count:
        raise UserError(
            f"{name} reads {info.name} ({text}) beside its image: write its values under constants of the tasks file, "
            f"{count} numbers, {len(values)} are given"
        )
    array = np.array(values).reshape(shape).astype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
    return numpy_helper.from_array(array, info.name)


def image_sides(info: onnx.ValueInfoProto, name: str) -> tuple[Layout, int, int, tuple[int, int]]:
    """The layout and channels of an image input, its batch, height and width, 0 where open."""
    kind = info.type.tensor_type
    sides = [max(side.dim_value, 0) for side in kind.shape.dim]
    given = "x".join(str(side or "?") for side in sides) or "a single value"
    if len(sides) != 4 or kind.elem_type not in _KINDS:
        raise UserError(f"{name} reads {info.name} of shape {given}: one image, 1x3xHxW or 1xHxWx3, is wanted")
    for channels in (_CHANNELS, 1):
        if sides[1] == channels:
            return "NCHW", channels, sides[0], (sides[2], sides[3])
        if sides[3] == channels:
            return "NHWC", channels, sides[0], (sides[1], sides[2])
    if not sides[1]:
        return "NCHW", _CHANNELS, sides[0], (sides[2], sides[3])
    raise UserError(
        f"{name} reads {info.name} of shape {given}: an image of three channels, or a grey one, is wanted, 1x3xHxW or "
        "1xHxWx3"
    )
