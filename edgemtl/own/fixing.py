"""One image of one size: the input that a net reads it from, values of other inputs, and shapes of all tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, inliner, numpy_helper

from edgemtl.errors import UnsupportedError, UserError
from edgemtl.own.folding import open_session, run_session, shape_of
from edgemtl.own.inputs import GREY, Constants, Layout, constant_tensors, image_and_others, image_sides

__all__ = ["FixedNet", "Reference", "check_changes", "fix_sizes", "observe_shapes"]

Reference = Callable[[NDArray[np.float32]], dict[str, NDArray[np.generic]]]
"""All outputs of a net, by name, for an image (1, 3, H, W) of the values that it reads, by its own runtime."""
_ALIKE = 1e-3
"""One image alone and in the file's own batch: this of an output's largest value (of 1 where that is less)."""
_LIMIT_BYTES = 2**31 - 1


@dataclass(frozen=True)
class FixedNet:
    """A model for one image of (H, W) `size`: the tensor `input` of NumPy's type `dtype`, in its `layout`.

    It reads one of its `channels`, grey, or three. The file itself was written for `batch` images of `own_size`, 0
    where a side is open. `constants` are the values that its other inputs have become.
    """

    model: onnx.ModelProto
    input: str
    layout: Layout
    channels: int
    size: tuple[int, int]
    dtype: np.dtype[np.generic]
    batch: int
    own_size: tuple[int, int]
    constants: Constants

    def as_read(self, image: NDArray[np.float32]) -> NDArray[np.generic]:
        """Values (1, 3, H, W) in the layout, channels and type that the net reads."""
        if self.channels == 1:
            image = np.tensordot(np.array(GREY, np.float32), image, (0, 1))[:, None]
        array = image if self.layout == "NCHW" else image.transpose(0, 2, 3, 1)
        return np.ascontiguousarray(array).astype(self.dtype)

    def random_image(self) -> NDArray[np.float32]:
        """Values (1, 3, H, W) from 0 to 1, the same each time; whole numbers of bytes where the net reads those."""
        values = np.random.default_rng(0).random((1, 3, *self.size), np.float32)
        return values if self.dtype.kind == "f" else np.floor(255 * values)


def fix_sizes(
    model: onnx.ModelProto, name: str, size: tuple[int, int] | None, constants: Constants | None = None
) -> FixedNet:
    """A copy of a model, called `name` in errors, that reads one image, of `size` (H, W) where that is given.

    Its other inputs become `constants`, ones where that is None. Whether the net takes another batch or size than its
    file has is for `check_changes` to say. Raises `UserError` for an input that no constant is given for, constants
    that do not fit, an input that is no image of one channel or three, and a size that lacks; `UnsupportedError` for a
    file of more than 2 GB.
    """
    if model.ByteSize() > _LIMIT_BYTES:
        raise UnsupportedError(f"{name} cannot be taken: it holds more than 2 GB, which no single ONNX model can")
    copy = inliner.inline_local_functions(model) if model.functions else model
    result = onnx.ModelProto()
    result.CopyFrom(copy)
    graph = result.graph
    info, others = image_and_others(graph, name)
    values = constant_tensors(others, constants, name)
    layout, channels, batch, sides = image_sides(info, name)
    if size is None and not all(sides):
        own = "x".join(str(side or "any") for side in sides) if any(sides) else "any size"
        raise UserError(f"{name} reads images of {own}: say of which size a bundle's are, for example --size 224x224")
    height, width = size or sides
    sizes = (1, channels, height, width) if layout == "NCHW" else (1, height, width, channels)
    kind = info.type.tensor_type.elem_type
    info.CopyFrom(helper.make_tensor_value_info(info.name, kind, sizes))
    graph.initializer.extend(values.values())
    _forget_shapes(graph)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    fixed = {other: numpy_helper.to_array(tensor).ravel().tolist() for other, tensor in values.items()}
    return FixedNet(result, info.name, layout, channels, (height, width), dtype, batch or 1, sides, fixed)


def check_changes(fixed: FixedNet, name: str) -> None:
    """Raise `UserError` where a file, called `name`, holds more of its batch or size than its input says.

    One of another size must run; one of a batch must give for one image what it gives for that image in its batch.
    """
    resized = any(own not in (0, side) for own, side in zip(fixed.own_size, fixed.size, strict=True))
    if not resized and fixed.batch == 1:
        return
    own = f"{fixed.batch}x{'x'.join(str(side or 'any') for side in fixed.own_size)}"
    wanted = f"one of {'x'.join(map(str, fixed.size))}"
    image = fixed.as_read(fixed.random_image())
    try:
        alone = _all_outputs(fixed, image, name)
        batched = _all_outputs(fixed, np.repeat(image, fixed.batch, axis=0), name)
    except UserError as error:
        remedy = "drop --size, or export" if resized else "export"
        raise UserError(
            f"{name} was written for images of {own} and does not run on {wanted}: {remedy} it again for one such image"
        ) from error
    for output, value in alone.items():
        if not _alike(batched[output], value):
            raise UserError(
                f"{name} was written for a batch of {fixed.batch} images, and output {output} of one image alone is "
                "another: export it again for one image"
            )


def _all_outputs(fixed: FixedNet, images: NDArray[np.generic], name: str) -> dict[str, NDArray[np.generic]]:
    """All outputs of the model on a batch, by plain ONNX Runtime."""
    model = onnx.ModelProto()
    model.CopyFrom(fixed.model)
    info = next(info for info in model.graph.input if info.name == fixed.input)
    info.type.tensor_type.shape.dim[0].dim_value = len(images)
    session = open_session(model.SerializeToString(), name, optimize=False)
    names = [info.name for info in session.get_outputs()]
    return dict(zip(names, run_session(session, names, {fixed.input: images}, name), strict=True))


def _alike(batched: NDArray[np.generic], alone: NDArray[np.generic]) -> bool:
    """Whether the first of a batch's values are those of one image; what has no batch must be the same."""
    first = batched if batched.shape == alone.shape else batched[:1]
    if first.shape != alone.shape or alone.dtype == object:
        return first.shape == alone.shape
    one, two = first.astype(np.float64), alone.astype(np.float64)
    allowed = _ALIKE * max(1.0, float(np.abs(two).max(initial=0.0)))
    return bool(np.allclose(one, two, rtol=0.0, atol=allowed, equal_nan=True))


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
