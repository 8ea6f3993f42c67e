"""Synthetic inputs for any ONNX file: sizes for its open axes, and values that its operators accept."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import UserError, unknown_name
from edgemtl.profiling.names import short_name

if TYPE_CHECKING:
    import onnx

__all__ = [
    "Declared",
    "InputChoice",
    "ModelInput",
    "Sizes",
    "assumptions",
    "declared_in",
    "made_up",
    "settle_inputs",
    "sizes_text",
]

Sizes = tuple[int, ...]
Axes = tuple[int | str | None, ...]
"""Declared sizes of an input: a number, a name that axes share, or None."""
_NUMPY_TYPES: Mapping[str, type] = {
    "tensor(bool)": np.bool_,
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(int8)": np.int8,
    "tensor(string)": np.object_,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint64)": np.uint64,
    "tensor(uint8)": np.uint8,
}

SIDES = (256, 224, 299, 320, 384, 448, 512, 640, 128, 64, 32, 16, 2)
"""Sizes tried for open heights and widths; the first that the net runs on is taken.

Lengths of sequences are half of it, sides of volumes a quarter.
"""
CHANNELS = 3
"""Size of an open channel axis."""
NAMED = 4
LIMIT_VALUES = 2**28


@dataclass(frozen=True)
class InputChoice:
    """A user's choices for a model's inputs: sizes by name ("" for the only input), and what integers are filled with.

    Ones are read as lengths, sizes and ids by most models; zeros are ids that every table has.
    """

    shapes: Mapping[str, Sizes] = field(default_factory=dict)
    integers: int = 1


@dataclass(frozen=True)
class Declared:
    """An input as the file has it: its type as ONNX Runtime writes it (`tensor(float)`), and its axes.

    No axes stand for a single value or for a tensor of any rank: ONNX Runtime does not tell them apart.
    """

    name: str
    kind: str
    axes: Axes


@dataclass(frozen=True)
class ModelInput:
    """An input with every size settled. `open_axes` were open and not chosen, the batch aside."""

    name: str
    kind: str
    sizes: Sizes
    open_axes: tuple[int, ...]


def assumptions(inputs: Sequence[ModelInput]) -> list[str]:
    """One line on the inputs whose sizes were assumed; empty if none were."""
    assumed = [each for each in inputs if each.open_axes]
    if not assumed:
        return []
    sizes = [f"{short_name(each.name)!r} as {sizes_text(each.sizes)}" for each in assumed[:NAMED]]
    sizes += [f"{len(assumed) - NAMED} more"] if len(assumed) > NAMED else []
    example = shlex.quote(f"{short_name(assumed[0].name)}={sizes_text(assumed[0].sizes)}")
    return [f"sizes that the file leaves open were assumed, {', '.join(sizes)}: choose with --shape {example}"]


def sizes_text(sizes: Iterable[int | str | None]) -> str:
    """`1x3x480x640`, with `?` for what is open."""
    return "x".join(str(size) if isinstance(size, int) else "?" for size in sizes)


def declared_in(graph: onnx.GraphProto) -> list[Declared]:
    """The inputs of a graph that are not weights of its own; sizes below zero are open, as old exporters write them."""
    weights = {tensor.name for tensor in graph.initializer}
    inputs = []
    for info in graph.input:
        axes = tuple(
            side.dim_value if side.HasField("dim_value") and side.dim_value >= 0 else side.dim_param or None
            for side in info.type.tensor_type.shape.dim
        )
        if info.name not in weights:
            inputs.append(Declared(info.name, _kind(info.type), axes))
    return inputs


def _kind(type_proto: onnx.TypeProto) -> str:
    from onnx import TensorProto

    if type_proto.HasField("optional_type"):
        return f"optional({_kind(type_proto.optional_type.elem_type)})"
    if type_proto.HasField("sequence_type"):
        return f"seq({_kind(type_proto.sequence_type.elem_type)})"
    return f"tensor({TensorProto.DataType.Name(type_proto.tensor_type.elem_type).lower()})"


def settle_inputs(
    declared: Sequence[Declared], chosen: Mapping[str, Sizes], file: str, side: int = SIDES[0]
) -> tuple[ModelInput, ...]:
    """Inputs with every size settled: as declared, as `chosen`, or assumed, heights and widths as `side`.

    An open first axis is a batch of one. Axes that share a name share their size. Raises `UserError`, one line, for a
    choice that does not fit `file`.
    """
    given = _by_name(chosen, [each.name for each in declared], file)
    for each in declared:
        if each.name in given:
            _check_fit(each, given[each.name], file)
    named = _named_sizes(declared, given, side)
    return tuple(_settled(each, given.get(each.name), named, side) for each in declared)


def _by_name(chosen: Mapping[str, Sizes], names: Sequence[str], file: str) -> dict[str, Sizes]:
    if "" in chosen and len(names) != 1:
        listed = ", ".join(map(short_name, names)) or "none"
        raise UserError(f"{file} has {len(names)} inputs: say which, --shape NAME=SIZES, of {listed}")
    allowed = set(names)
    for name in chosen:
        if name and name not in allowed:
            raise unknown_name(f"input of {file}:", name, names)
    return {name or names[0]: sizes for name, sizes in chosen.items()}


def _check_fit(declared: Declared, sizes: Sizes, file: str) -> None:
    axes, name = declared.axes, short_name(declared.name)
    same = all(not isinstance(axis, int) or axis == size for axis, size in zip(axes, sizes, strict=False))
    if axes and not (same and len(axes) == len(sizes)):
        raise UserError(
            f"--shape {name}={sizes_text(sizes)} does not fit {file}, whose input {name!r} is {sizes_text(axes)}: "
            "give a number for each ? and keep the others"
        )


def _named_sizes(declared: Sequence[Declared], given: Mapping[str, Sizes], side: int) -> dict[str, int]:
    """Size of every axis name: as chosen, else as its place in an image or a sequence suggests."""
    size_of: dict[str, int] = {}
    for each in declared:
        for axis, size in zip(each.axes, given.get(each.name, ()), strict=False):
            if isinstance(axis, str):
                size_of.setdefault(axis, size)
    for each in declared:
        for index, axis in enumerate(each.axes):
            if index and isinstance(axis, str):
                size_of.setdefault(axis, 1 if _is_batch(axis) else _assumed(each.axes, index, side))
    return size_of


def _is_batch(axis: str) -> bool:
    return axis.lower() in ("n", "b", "bs") or "batch" in axis.lower()


def _assumed(axes: Axes, position: int, side: int) -> int:
    """Size of an open axis: batch, channels first or last, height and width, else a length."""
    if position == 0:
        return 1
    if len(axes) < 4:
        return side // 2
    last_is_channels = axes[-1] in (1, 3, 4) and not isinstance(axes[1], int)
    channels = len(axes) - 1 if last_is_channels else 1
    return CHANNELS if position == channels else side if len(axes) == 4 else max(1, side // 4)


def _settled(declared: Declared, given: Sizes | None, named: Mapping[str, int], side: int) -> ModelInput:
    sizes = given or tuple(
        axis if isinstance(axis, int) else named.get(axis or "", _assumed(declared.axes, index, side))
        for index, axis in enumerate(declared.axes)
    )
    is_open = [
        index
        for index, axis in enumerate(declared.axes)
        if index and not isinstance(axis, int) and not (axis and _is_batch(axis))
    ]
    return ModelInput(declared.name, declared.kind, sizes, () if given else tuple(is_open))


def made_up(inputs: Sequence[ModelInput], integers: int, file: str) -> dict[str, Any]:
    """A seeded array for every input: normal values, flags that are set, and integers that are all `integers`.

    What is optional is None, a sequence holds one tensor of one value.

    Raises `UserError` for an element type without a NumPy twin, and above 2^28 values in all.
    """
    if sum(math.prod(each.sizes) for each in inputs) > LIMIT_VALUES:
        largest = max(inputs, key=lambda each: math.prod(each.sizes))
        raise UserError(
            f"input {short_name(largest.name)!r} of {file} is {sizes_text(largest.sizes)}: at most {LIMIT_VALUES} "
            "values are made up; choose less with --shape, or profile a graph with smaller inputs"
        )
    return {each.name: _array(each, integers, file) for each in inputs}


def _array(each: ModelInput, integers: int, file: str) -> NDArray[Any] | list[NDArray[Any]] | None:
    if each.kind.startswith("optional("):
        return None
    if each.kind.startswith("seq("):
        inner = ModelInput(each.name, each.kind[len("seq(") : -1], (1,), ())
        return [np.asarray(_array(inner, integers, file))]
    kind = _NUMPY_TYPES.get(each.kind)
    if kind is None:
        raise UserError(
            f"input {short_name(each.name)!r} of {file} is of type {each.kind}, which cannot be made up: profile "
            "another graph"
        )
    if kind is np.object_:
        return np.full(each.sizes, "a", kind)
    if issubclass(kind, np.floating):
        drawn = np.random.default_rng(0).standard_normal(each.sizes, np.float32)
        return drawn.astype(kind, copy=False)
    return np.full(each.sizes, True if kind is np.bool_ else integers, kind)
