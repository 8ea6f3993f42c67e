"""Several levels' weights in one file.

A level's weight is a part of its supernet's, times a factor for each output channel that folding the level's own batch
normalisation gives. So the supernet's tensors are stored once, with every level's factors, and a level's own file of
weights without those: `edgemtl.runtime` puts them in when it opens the level. (`Slice` and `Mul` on external data in
the graph give the same engine, but it takes several times as long to open.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from edgemtl.models import Supernet
from edgemtl.runtime import SharedPart, factor_name

__all__ = ["Carrier", "SharedLevel", "ir_carrier", "onnx_carrier", "share_weights"]

_LEAST_BYTES = 1024
_CLOSE = 1e-6

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Carrier:
    """The file of a level's engine that holds its weights: the content, and at which byte each tensor's values begin.

    Tensors below a kilobyte, or not FP32, are not shared.
    """

    content: bytes
    tensors: Mapping[int, TensorProto]


@dataclass(frozen=True)
class SharedLevel:
    """The content of a carrier without its shared weights, and which of them belong where."""

    content: bytes
    parts: tuple[SharedPart, ...]


def onnx_carrier(model: onnx.ModelProto) -> Carrier:
    """An ONNX model as its own carrier."""
    marked = onnx.ModelProto()
    marked.CopyFrom(model)
    marks: dict[bytes, TensorProto] = {}
    for number, (mark, tensor) in enumerate(zip(_tensors(marked.graph), _tensors(model.graph), strict=True)):
        if _worth_sharing(tensor):
            size = len(tensor.raw_data)
            digest = hashlib.sha256(f"{number} {tensor.name}".encode()).digest()
            mark.raw_data = (digest * (size // len(digest) + 1))[:size]
            marks[mark.raw_data] = tensor
    content = marked.SerializeToString(deterministic=True)
    tensors_at = {content.index(mark): tensor for mark, tensor in marks.items()}
    return Carrier(model.SerializeToString(deterministic=True), tensors_at)


def ir_carrier(xml: bytes, weights: bytes, model: onnx.ModelProto) -> Carrier:
    """The file of weights of OpenVINO's representation of `model`: constants are recognised by their values."""
    tensor_of = {tensor.raw_data: tensor for tensor in _tensors(model.graph) if _worth_sharing(tensor)}
    tensors_at = {}
    for layer in ElementTree.fromstring(xml).iter("layer"):
        data = layer.find("data")
        if layer.get("type") == "Const" and data is not None:
            start = int(data.get("offset", 0))
            constant = tensor_of.get(weights[start : start + int(data.get("size", 0))])
            if constant is not None:
                tensors_at[start] = constant
    return Carrier(weights, tensors_at)


def share_weights(
    carriers: Sequence[Carrier], supernet: Supernet
) -> tuple[list[SharedLevel], dict[str, NDArray[np.float32]]]:
    """The carriers of nets that `supernet` was cut into, and the tensors that they share, with each level's factors.

    Of each parameter the smallest part is kept that all levels' weights are parts of. What is not a part of the
    supernet's stays in its carrier.
    """
    factors = [_factors(carrier, supernet) for carrier in carriers]
    shapes: dict[str, tuple[int, ...]] = {}
    for carrier, own in zip(carriers, factors, strict=True):
        for tensor in carrier.tensors.values():
            if tensor.name in own:
                shapes[tensor.name] = tuple(map(max, shapes.get(tensor.name, tensor.dims), tensor.dims))
    tensors = {name: _part(supernet, name, shape) for name, shape in shapes.items()}
    for number, own in enumerate(factors):
        tensors |= {factor_name(number, name): factor for name, factor in own.items()}
    return [_without(carrier, own) for carrier, own in zip(carriers, factors, strict=True)], tensors


def _worth_sharing(tensor: TensorProto) -> bool:
    return tensor.data_type == TensorProto.FLOAT and len(tensor.raw_data) >= _LEAST_BYTES


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """The initializers of a graph and of all that stand inside its nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _tensors(attribute.g)


def _part(supernet: Supernet, name: str, shape: tuple[int, ...]) -> Array:
    return np.ascontiguousarray(supernet.part(name, shape).detach().numpy())


def _factors(carrier: Carrier, supernet: Supernet) -> dict[str, Array]:
    """For each weight that is a part of the supernet's, what its output channels are multiplied by."""
    factors = {tensor.name: _factor(tensor, supernet) for tensor in carrier.tensors.values()}
    return {name: factor for name, factor in factors.items() if factor is not None}


def _factor(tensor: TensorProto, supernet: Supernet) -> Array | None:
    whole = supernet.shared.get(tensor.name)
    if whole is None:
        return None
    value = numpy_helper.to_array(tensor)
    if value.ndim != whole.ndim:
        return None
    if any(own > most for own, most in zip(value.shape, whole.shape, strict=True)):
        return None
    part = _part(supernet, tensor.name, value.shape).reshape(len(value), -1).astype(np.float64)
    flat = value.reshape(len(value), -1)
    factor = (part * flat).sum(1) / np.maximum((part * part).sum(1), 1e-30)
    apart = np.abs(part * factor[:, None] - flat).max()
    return factor.astype(np.float32) if apart <= _CLOSE * max(float(np.abs(flat).max()), 1e-30) else None


def _without(carrier: Carrier, shared: Mapping[str, Array]) -> SharedLevel:
    """The content with the bytes of some tensors cut out of it."""
    rest, parts, end, cut = bytearray(), [], 0, 0
    for position, tensor in sorted(carrier.tensors.items()):
        if tensor.name in shared:
            rest += carrier.content[end:position]
            parts.append(SharedPart(position - cut, tensor.name, tuple(tensor.dims)))
            end, cut = position + len(tensor.raw_data), cut + len(tensor.raw_data)
    return SharedLevel(bytes(rest + carrier.content[end:]), tuple(parts))
