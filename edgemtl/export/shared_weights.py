"""Several levels' weights in one file.

A level's weight is a part of its supernet's, or of the whole net's that it was cut from, times a factor for each output
channel that folding the level's own batch normalisation gives. So those tensors are stored once, with every level's
factors, and a level's own file of weights without those: `edgemtl.runtime` puts them in when it opens the level.
(`Slice` and `Mul` on external data in the graph give the same engine, but it takes several times as long to open.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import gt, itemgetter
from typing import Protocol
from xml.etree import ElementTree

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from edgemtl.models import Supernet
from edgemtl.runtime import SharedPart, factor_name

__all__ = [
    "Carrier",
    "CutWeights",
    "Part",
    "SharedLevel",
    "StoredWeights",
    "SupernetWeights",
    "Weight",
    "half_carrier",
    "ir_carrier",
    "onnx_carrier",
    "share_weights",
]

_LEAST_BYTES = 1024
_CLOSE = 1e-6

Array = NDArray[np.float32]
Tensor = NDArray[np.float32] | NDArray[np.int32]
Positions = Mapping[int, tuple[int, ...]]
"""The positions that a weight keeps along an axis; an axis that is not named is whole."""


@dataclass(frozen=True)
class Part:
    """A part of a stored weight: the first values in every axis, or those at `positions` (None: all) along each."""

    value: Array
    positions: tuple[tuple[int, ...] | None, ...] = ()


class StoredWeights(Protocol):
    """Weights that are stored once, of which the levels' are parts."""

    def part(self, level: int, name: str, shape: tuple[int, ...]) -> Part | None:
        """The part that a level's weight of this name and shape may be; None where there is none."""
        ...

    def tensor(self, name: str, shape: tuple[int, ...]) -> Array:
        """A weight as it is stored, where the largest of its parts that begin at the first value has this shape."""
        ...


@dataclass(frozen=True)
class SupernetWeights:
    """Weights of a supernet: parts are prefixes, and the centre of a kernel."""

    supernet: Supernet

    def part(self, level: int, name: str, shape: tuple[int, ...]) -> Part | None:
        """See `StoredWeights`."""
        whole = self.supernet.shared.get(name)
        if whole is None or len(shape) != whole.ndim or any(map(gt, shape, whole.shape)):
            return None
        return Part(self.tensor(name, shape))

    def tensor(self, name: str, shape: tuple[int, ...]) -> Array:
        """See `StoredWeights`."""
        return np.ascontiguousarray(self.supernet.part(name, shape).detach().numpy())


@dataclass(frozen=True)
class CutWeights:
    """Weights of a net, of which each level keeps positions along some axes, by its number and the weight's name."""

    whole: Mapping[str, Array]
    positions: Sequence[Mapping[str, Positions]]

    def part(self, level: int, name: str, shape: tuple[int, ...]) -> Part | None:
        """See `StoredWeights`."""
        value = self.whole.get(name)
        if value is None or value.ndim != len(shape):
            return None
        own, positions = self.positions[level].get(name, {}), list[tuple[int, ...] | None]()
        for axis, size in enumerate(shape):
            kept = None if size == value.shape[axis] else own.get(axis, ())
            if kept is not None and len(kept) != size:
                return None
            positions.append(kept)
            value = value if kept is None else value.take(kept, axis)
        return Part(value, tuple(positions))

    def tensor(self, name: str, shape: tuple[int, ...]) -> Array:
        """See `StoredWeights`."""
        return np.ascontiguousarray(self.whole[name])


@dataclass(frozen=True)
class Weight:
    """A weight of a level in FP32, under its name in the supernet; `kind` is the type that its file holds it in."""

    name: str
    value: Array
    kind: str = "float32"

    @property
    def stored_bytes(self) -> int:
        """The bytes that it takes in its file."""
        return self.value.size * np.dtype(self.kind).itemsize


@dataclass(frozen=True)
class Carrier:
    """The file of a level's engine that holds its weights: the content, and at which byte each weight's values begin.

    Weights below a kilobyte, or of other types than FP32 and FP16, are not shared.
    """

    content: bytes
    weights: Mapping[int, Weight]


@dataclass(frozen=True)
class SharedLevel:
    """The content of a carrier without its shared weights, and which of them belong where."""

    content: bytes
    parts: tuple[SharedPart, ...]


def onnx_carrier(model: onnx.ModelProto) -> Carrier:
    """An ONNX model in FP32 as its own carrier."""
    return _carrier(model, _weight)


def half_carrier(model: onnx.ModelProto, exact: onnx.ModelProto) -> Carrier:
    """An ONNX model in FP16 as its own carrier: weights are recognised by their values in `exact`, the one in FP32."""
    halves: dict[bytes, Weight] = {}
    for tensor in _tensors(exact.graph):
        if (weight := _weight(tensor)) is not None:
            halves[weight.value.astype(np.float16).tobytes()] = replace(weight, kind="float16")

    def weight_of(tensor: TensorProto) -> Weight | None:
        return halves.get(tensor.raw_data) if tensor.data_type == TensorProto.FLOAT16 else _weight(tensor)

    return _carrier(model, weight_of)


def ir_carrier(xml: bytes, weights: bytes, model: onnx.ModelProto) -> Carrier:
    """The file of weights of OpenVINO's representation of `model`: constants are recognised by their values."""
    weight_of = {tensor.raw_data: weight for tensor in _tensors(model.graph) if (weight := _weight(tensor))}
    weights_at = {}
    for layer in ElementTree.fromstring(xml).iter("layer"):
        data = layer.find("data")
        if layer.get("type") == "Const" and data is not None:
            start = int(data.get("offset", 0))
            constant = weight_of.get(weights[start : start + int(data.get("size", 0))])
            if constant is not None:
                weights_at[start] = constant
    return Carrier(weights, weights_at)


def _carrier(model: onnx.ModelProto, weight_of: Callable[[TensorProto], Weight | None]) -> Carrier:
    """A serialized model, and at which byte of it each weight's values begin: bytes that mark them are looked for."""
    marked = onnx.ModelProto()
    marked.CopyFrom(model)
    marks: dict[bytes, Weight] = {}
    for number, (mark, tensor) in enumerate(zip(_tensors(marked.graph), _tensors(model.graph), strict=True)):
        size, weight = len(tensor.raw_data), weight_of(tensor)
        if weight is not None and size >= _LEAST_BYTES:
            digest = hashlib.sha256(f"{number} {tensor.name}".encode()).digest()
            mark.raw_data = (digest * (size // len(digest) + 1))[:size]
            marks[mark.raw_data] = weight
    content = marked.SerializeToString(deterministic=True)
    weights_at = {content.index(mark): weight for mark, weight in marks.items()}
    return Carrier(model.SerializeToString(deterministic=True), weights_at)


def share_weights(
    carriers: Sequence[Mapping[str, Carrier]], stored: StoredWeights
) -> tuple[list[dict[str, SharedLevel]], dict[str, Tensor]]:
    """The carriers of levels whose weights are parts of `stored`, and the tensors that they are put together from.

    A level has a carrier for each file that holds its weights, by the file's key. Its own tensors are the factors of
    its weights' output channels, and positions along axes, each list once. What is no part of a stored weight stays in
    its carrier.
    """
    parts = [_parts(number, level, stored) for number, level in enumerate(carriers)]
    shapes: dict[str, tuple[int, ...]] = {}
    for own in parts:
        for name, (part, _) in own.items():
            shapes[name] = tuple(map(max, shapes.get(name, part.value.shape), part.value.shape))
    tensors: dict[str, Tensor] = {name: stored.tensor(name, shape) for name, shape in shapes.items()}
    lists: dict[tuple[int, ...], str] = {}
    shared = []
    for number, (level, own) in enumerate(zip(carriers, parts, strict=True)):
        tensors |= {factor_name(number, name): factor for name, (_, factor) in own.items()}
        picks = {name: tuple(_list_name(lists, each) for each in part.positions) for name, (part, _) in own.items()}
        shared.append({key: _without(carrier, picks) for key, carrier in level.items()})
    tensors |= {name: np.array(positions, np.int32) for positions, name in lists.items()}
    return shared, tensors


def _list_name(lists: dict[tuple[int, ...], str], positions: tuple[int, ...] | None) -> str | None:
    """Name of the tensor that holds these positions, a new one where none does; None for a whole axis."""
    return None if positions is None else lists.setdefault(positions, f"positions-{len(lists)}")


def _weight(tensor: TensorProto) -> Weight | None:
    if tensor.data_type != TensorProto.FLOAT or len(tensor.raw_data) < _LEAST_BYTES:
        return None
    return Weight(tensor.name, numpy_helper.to_array(tensor))


def _weights(level: Mapping[str, Carrier]) -> Iterator[Weight]:
    for carrier in level.values():
        yield from carrier.weights.values()


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """The initializers of a graph and of all that stand inside its nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _tensors(attribute.g)


def _parts(number: int, level: Mapping[str, Carrier], stored: StoredWeights) -> dict[str, tuple[Part, Array]]:
    """For each weight that is a part of a stored one, that part, and what its output channels are multiplied by."""
    parts: dict[str, tuple[Part, Array]] = {}
    for weight in _weights(level):
        part = stored.part(number, weight.name, weight.value.shape)
        factor = None if part is None else _factor(weight.value, part.value)
        if part is not None and factor is not None:
            parts[weight.name] = part, factor
    return parts


def _factor(value: Array, part: Array) -> Array | None:
    """The factors of a part's output channels that give `value`; None where there are none."""
    rows = part.reshape(len(value), -1).astype(np.float64)
    flat = value.reshape(len(value), -1)
    factor = (rows * flat).sum(1) / np.maximum((rows * rows).sum(1), 1e-30)
    apart = np.abs(rows * factor[:, None] - flat).max()
    return factor.astype(np.float32) if apart <= _CLOSE * max(float(np.abs(flat).max()), 1e-30) else None


def _without(carrier: Carrier, shared: Mapping[str, tuple[str | None, ...]]) -> SharedLevel:
    """The content with the bytes of some tensors cut out of it, which are put together by the named positions."""
    rest, parts, end, cut = bytearray(), [], 0, 0
    for position, weight in sorted(carrier.weights.items(), key=itemgetter(0)):
        if weight.name in shared:
            rest += carrier.content[end:position]
            parts.append(SharedPart(position - cut, weight.name, weight.value.shape, weight.kind, shared[weight.name]))
            end, cut = position + weight.stored_bytes, cut + weight.stored_bytes
    return SharedLevel(bytes(rest + carrier.content[end:]), tuple(parts))
