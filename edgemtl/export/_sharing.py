"""Several levels' models over one file of weights.

A level's weight is a part of its supernet's, times a factor for each output channel that folding the level's own batch
normalisation gives. So the supernet's tensors are stored once, with every level's factors, and a level's model without
those weights: `edgemtl.runtime` puts them in when it opens the level. (`Slice` and `Mul` on external data in the graph
give the same engine, but it takes several times as long to open.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from edgemtl.models import Supernet
from edgemtl.runtime import SharedPart, factor_name

__all__ = ["SharedLevel", "share_weights"]

_LEAST_BYTES = 1024
_CLOSE = 1e-6

Array = NDArray[np.float32]


@dataclass(frozen=True)
class SharedLevel:
    """A serialized model without its shared weights, and which of them belong where."""

    content: bytes
    parts: tuple[SharedPart, ...]


def share_weights(
    models: Sequence[onnx.ModelProto], supernet: Supernet
) -> tuple[list[SharedLevel], dict[str, NDArray[np.float32]]]:
    """The models of nets that `supernet` was cut into, and the tensors that they share, with each level's factors.

    Of each parameter the smallest part is kept that all levels' weights are parts of. What is not a part of the
    supernet's (biases, weights below a kilobyte) stays in its model.
    """
    factors = [_factors(model, supernet) for model in models]
    shapes: dict[str, tuple[int, ...]] = {}
    for model, own in zip(models, factors, strict=True):
        for tensor in _tensors(model.graph):
            if tensor.name in own:
                shapes[tensor.name] = tuple(map(max, shapes.get(tensor.name, tensor.dims), tensor.dims))
    tensors = {name: _part(supernet, name, shape) for name, shape in shapes.items()}
    for number, own in enumerate(factors):
        tensors |= {factor_name(number, name): factor for name, factor in own.items()}
    return [_without(model, set(own)) for model, own in zip(models, factors, strict=True)], tensors


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """The initializers of a graph and of all that stand inside its nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _tensors(attribute.g)


def _part(supernet: Supernet, name: str, shape: tuple[int, ...]) -> Array:
    return np.ascontiguousarray(supernet.part(name, shape).detach().numpy())


def _factors(model: onnx.ModelProto, supernet: Supernet) -> dict[str, Array]:
    """For each weight that is a part of the supernet's, what its output channels are multiplied by."""
    found = {tensor.name: _factor(tensor, supernet) for tensor in _tensors(model.graph)}
    return {name: factor for name, factor in found.items() if factor is not None}


def _factor(tensor: TensorProto, supernet: Supernet) -> Array | None:
    whole = supernet.shared.get(tensor.name)
    if whole is None or tensor.data_type != TensorProto.FLOAT or not tensor.raw_data:
        return None
    value = numpy_helper.to_array(tensor)
    if value.nbytes < _LEAST_BYTES or value.ndim != whole.ndim:
        return None
    if any(own > most for own, most in zip(value.shape, whole.shape, strict=True)):
        return None
    part = _part(supernet, tensor.name, value.shape).reshape(len(value), -1).astype(np.float64)
    flat = value.reshape(len(value), -1)
    factor = (part * flat).sum(1) / np.maximum((part * part).sum(1), 1e-30)
    apart = np.abs(part * factor[:, None] - flat).max()
    return factor.astype(np.float32) if apart <= _CLOSE * max(float(np.abs(flat).max()), 1e-30) else None


def _without(model: onnx.ModelProto, names: set[str]) -> SharedLevel:
    """The serialized model with the bytes of some tensors cut out of it."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    marks: dict[bytes, TensorProto] = {}
    for tensor in _tensors(result.graph):
        if tensor.name in names:
            size = len(tensor.raw_data)
            digest = hashlib.sha256(tensor.name.encode()).digest()
            tensor.raw_data = (digest * (size // len(digest) + 1))[:size]
            marks[tensor.raw_data] = tensor
    content = result.SerializeToString(deterministic=True)
    kept, parts, end, cut = bytearray(), [], 0, 0
    for place, mark in sorted((content.index(mark), mark) for mark in marks):
        kept += content[end:place]
        parts.append(SharedPart(place - cut, marks[mark].name, tuple(marks[mark].dims)))
        end, cut = place + len(mark), cut + len(mark)
    return SharedLevel(bytes(kept + content[end:]), tuple(parts))
