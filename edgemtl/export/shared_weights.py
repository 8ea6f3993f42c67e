"""Several levels' weights in one file.

A level's weight is a part of its supernet's, times a factor for each output channel that folding the level's own batch
normalisation gives. So the supernet's tensors are stored once, with every level's factors, and a level's own file of
weights without those: `edgemtl.runtime` puts them in when it opens the level. (`Slice` and `Mul` on external data in
the graph give the same engine, but it takes several times as long to open.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from xml.etree import ElementTree

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from edgemtl.models import Supernet
from edgemtl.runtime import SharedPart, factor_name

__all__ = ["Carrier", "SharedLevel", "Weight", "half_carrier", "ir_carrier", "onnx_carrier", "share_weights"]

_LEAST_BYTES = 1024
_CLOSE = 1e-6

Array = NDArray[np.float32]


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
    carriers: Sequence[Mapping[str, Carrier]], supernet: Supernet
) -> tuple[list[dict[str, SharedLevel]], dict[str, Array]]:
    """The carriers of nets that `supernet` was cut into, and the tensors that they share, with each level's factors.

    A level has a carrier for each file that holds its weights, by the file's key.

    Of each parameter the smallest part is kept that all levels' weights are parts of. What is not a part of the
    supernet's stays in its carrier.
    """
    factors = [_factors(level, supernet) for level in carriers]
    shapes: dict[str, tuple[int, ...]] = {}
    for level, own in zip(carriers, factors, strict=True):
        for weight in _weights(level):
            if weight.name in own:
                shape = weight.value.shape
                shapes[weight.name] = tuple(map(max, shapes.get(weight.name, shape), shape))
    tensors = {name: _part(supernet, name, shape) for name, shape in shapes.items()}
    for number, own in enumerate(factors):
        tensors |= {factor_name(number, name): factor for name, factor in own.items()}
    shared = [
        {key: _without(carrier, own) for key, carrier in level.items()}
        for level, own in zip(carriers, factors, strict=True)
    ]
    return shared, tensors


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


def _part(supernet: Supernet, name: str, shape: tuple[int, ...]) -> Array:
    return np.ascontiguousarray(supernet.part(name, shape).detach().numpy())


def _factors(level: Mapping[str, Carrier], supernet: Supernet) -> dict[str, Array]:
    """For each weight that is a part of the supernet's, what its output channels are multiplied by."""
    factors = {weight.name: _factor(weight, supernet) for weight in _weights(level)}
    return {name: factor for name, factor in factors.items() if factor is not None}


def _factor(weight: Weight, supernet: Supernet) -> Array | None:
    whole, value = supernet.shared.get(weight.name), weight.value
    if whole is None or value.ndim != whole.ndim:
        return None
    if any(own > most for own, most in zip(value.shape, whole.shape, strict=True)):
        return None
    part = _part(supernet, weight.name, value.shape).reshape(len(value), -1).astype(np.float64)
    flat = value.reshape(len(value), -1)
    factor = (part * flat).sum(1) / np.maximum((part * part).sum(1), 1e-30)
    apart = np.abs(part * factor[:, None] - flat).max()
    return factor.astype(np.float32) if apart <= _CLOSE * max(float(np.abs(flat).max()), 1e-30) else None


def _without(carrier: Carrier, shared: Mapping[str, Array]) -> SharedLevel:
    """The content with the bytes of some tensors cut out of it."""
    rest, parts, end, cut = bytearray(), [], 0, 0
    for position, weight in sorted(carrier.weights.items(), key=itemgetter(0)):
        if weight.name in shared:
            rest += carrier.content[end:position]
            parts.append(SharedPart(position - cut, weight.name, weight.value.shape, weight.kind))
            end, cut = position + weight.stored_bytes, cut + weight.stored_bytes
    return SharedLevel(bytes(rest + carrier.content[end:]), tuple(parts))
