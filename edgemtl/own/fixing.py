"""One image of one size: the input that a net reads it from, and shapes of all tensors once that is fixed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, inliner, numpy_helper

from edgemtl.errors import UnsupportedError, UserError
from edgemtl.own.folding import open_session, run_session, shape_of

__all__ = ["FixedNet", "Layout", "Reference", "fix_sizes", "observe_shapes"]

Layout = Literal["NCHW", "NHWC"]
Reference = Callable[[NDArray[np.float32]], dict[str, NDArray[np.generic]]]
"""All outputs of a net, by name, for an image (1, 3, H, W) of the values that it reads, by its own runtime."""
_CHANNELS = 3
_LIMIT_BYTES = 2**31 - 1
_KINDS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.UINT8,
    onnx.TensorProto.INT32,
)


@dataclass(frozen=True)
class FixedNet:
    """A model for one image of (H, W) `size`: the tensor `input` of NumPy's type `dtype`, in its `layout`."""

    model: onnx.ModelProto
    input: str
    layout: Layout
    size: tuple[int, int]
    dtype: np.dtype[np.generic]

    def as_read(self, image: NDArray[np.float32]) -> NDArray[np.generic]:
        """Values (1, 3, H, W) in the layout and type that the net reads."""
        array = image if self.layout == "NCHW" else image.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(array).astype(self.dtype)

    def random_image(self) -> NDArray[np.float32]:
        """Values (1, 3, H, W) from 0 to 1, the same each time; whole numbers of bytes where the net reads those."""
        values = np.random.default_rng(0).random((1, _CHANNELS, *self.size), np.float32)
        return values if self.dtype.kind == "f" else np.floor(255 * values)


def fix_sizes(model: onnx.ModelProto, name: str, size: tuple[int, int] | None) -> FixedNet:
    """A copy of a model, called `name` in errors, that reads one image, of `size` (H, W) where its own sides are open.

    Raises `UserError` for another number of inputs, one that is no image of three channels, and a size that lacks or
    does not fit; `UnsupportedError` for a file of more than 2 GB.
    """
    if model.ByteSize() > _LIMIT_BYTES:
        raise UnsupportedError(f"{name} cannot be taken: it holds more than 2 GB, which no single ONNX model can")
    copy = inliner.inline_local_functions(model) if model.functions else model
    result = onnx.ModelProto()
    result.CopyFrom(copy)
    graph = result.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [info for info in graph.input if info.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(info.name for info in inputs) or "none"
        raise UserError(f"{name} reads {len(inputs)} inputs ({names}): a net that reads one image is wanted")
    info = inputs[0]
    layout, sides = _sides(info, name)
    height, width = _settled(sides, size, name)
    sizes = (1, _CHANNELS, height, width) if layout == "NCHW" else (1, height, width, _CHANNELS)
    kind = info.type.tensor_type.elem_type
    info.CopyFrom(helper.make_tensor_value_info(info.name, kind, sizes))
    _forget_shapes(graph)
    return FixedNet(result, info.name, layout, (height, width), helper.tensor_dtype_to_np_dtype(kind))


def _sides(info: onnx.ValueInfoProto, name: str) -> tuple[Layout, tuple[int, int]]:
    """The layout of an image input, and its height and width, 0 where open."""
    kind = info.type.tensor_type
    sides = [max(side.dim_value, 0) for side in kind.shape.dim]
    given = "x".join(str(side or "?") for side in sides) or "a single value"
    if len(sides) != 4 or sides[0] > 1 or kind.elem_type not in _KINDS:
        raise UserError(f"{name} reads {info.name} of shape {given}: one image, 1x3xHxW or 1xHxWx3, is wanted")
    if sides[1] == _CHANNELS or (not sides[1] and sides[3] != _CHANNELS):
        return "NCHW", (sides[2], sides[3])
    if sides[3] == _CHANNELS:
        return "NHWC", (sides[1], sides[2])
    raise UserError(
        f"{name} reads {info.name} of shape {given}: an image of three channels is wanted, 1x3xHxW or 1xHxWx3"
    )


def _settled(own: tuple[int, int], given: tuple[int, int] | None, name: str) -> tuple[int, int]:
    fits = given is None or all(side in (0, wanted) for side, wanted in zip(own, given, strict=True))
    if not fits and given is not None:
        sides = "x".join(str(side or "any") for side in own)
        raise UserError(f"{name} reads images of {sides}, --size {given[0]}x{given[1]} does not fit: drop it")
    if given is None and not all(own):
        sides = "x".join(str(side or "any") for side in own)
        raise UserError(f"{name} reads images of {sides}: say of which size a bundle's are, for example --size 224x224")
    height, width = given or own
    return height, width


def _forget_shapes(graph: onnx.GraphProto) -> None:
    """Drop what the file says of shapes: they may be those of other sizes, and are inferred anew."""
    del graph.value_info[:]
    for info in graph.output:
        info.type.tensor_type.ClearField("shape")


def observe_shapes(model: onnx.ModelProto, source: str, image: NDArray[np.generic], name: str) -> onnx.ModelProto:
    """The model with type and shape of every tensor, of those that inference leaves open by running it once.

    `image` is what its input `source` reads. Raises `UserError` where it does not run.
    """
    graph = model.graph
    known = {info.name: info for info in (*graph.value_info, *graph.output) if shape_of(info) is not None}
    written = [output for node in graph.node for output in node.output if output]
    missing = [tensor for tensor in written if tensor not in known]
    if missing:
        known |= _observed(model, missing, {source: image}, name)
    outputs = [info.name for info in graph.output]
    constants = {tensor.name: tensor for tensor in graph.initializer}
    infos = [known[tensor] for tensor in written if tensor not in outputs]
    results = [known[output] if output in known else _like(constants[output]) for output in outputs]
    for field, values in ((graph.value_info, infos), (graph.output, results)):
        copies = [onnx.ValueInfoProto.FromString(info.SerializeToString()) for info in values]
        del field[:]
        field.extend(copies)
    return model


def _observed(
    model: onnx.ModelProto, tensors: list[str], feeds: Mapping[str, NDArray[np.generic]], name: str
) -> dict[str, onnx.ValueInfoProto]:
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in tensors)
    session = open_session(probe.SerializeToString(), name, optimize=False)
    values = run_session(session, tensors, feeds, name)
    return {
        tensor: helper.make_tensor_value_info(tensor, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for tensor, value in zip(tensors, values, strict=True)
    }


def _like(tensor: onnx.TensorProto) -> onnx.ValueInfoProto:
    array = numpy_helper.to_array(tensor)
    return helper.make_tensor_value_info(tensor.name, tensor.data_type, array.shape)
