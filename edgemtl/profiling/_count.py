"""FLOPs, parameters and bytes of an ONNX file, counted exactly and split into what tasks share and what they own.

Nothing but the file is read, so that a count holds for what is deployed. Every output is a task unless the metadata
names tasks. A part that several tasks need counts once, in the trunk.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
from onnx import TensorProto, helper

from edgemtl._onnx import read_onnx
from edgemtl.errors import UnsupportedError, UserError

__all__ = ["Cost", "Count", "count_graph"]

_WEIGHT_INPUT = {
    "Conv": 1,
    "ConvInteger": 1,
    "ConvTranspose": 1,
    "Gemm": 1,
    "MatMul": 1,
    "MatMulInteger": 1,
    "QLinearConv": 3,
    "QLinearMatMul": 3,
}
_NOT_PARAMETERS = (TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING)
_SETTINGS = {"Clip", "DequantizeLinear", "Pad", "QuantizeLinear", "Resize"}
"""Operators whose inputs after the first are settings (bounds, scales, zero points), not parameters."""

Shape = tuple[int | None, ...] | None


@dataclass(frozen=True)
class Count:
    """FLOPs for one image (two a MAC), parameters, and bytes of everything constant as it is stored."""

    flops: int = 0
    params: int = 0
    weight_bytes: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.flops + other.flops, self.params + other.params, self.weight_bytes + other.weight_bytes)


@dataclass(frozen=True)
class Cost:
    """Counts of a whole graph, of what several tasks share, of each task's own part, and of all that each task runs."""

    total: Count
    trunk: Count
    tasks: Mapping[str, Count]
    paths: Mapping[str, Count]


@dataclass
class _Item:
    """An operator or a constant: what it reads and writes, and what it counts for."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    count: Count


def count_graph(model: onnx.ModelProto | Path) -> Cost:
    """Counts of an ONNX model or file; a batch dimension without a number is taken as 1.

    FLOPs are those of convolutions and matrix products; experts get even shares of the tokens, where edgemtl's metadata
    tell how many they share. Parameters and bytes include Constant and ConstantOfShape nodes
    and what stands inside `If`, of which the dearer branch's FLOPs count. Raises `UserError` for a file that is no ONNX
    model or where a shape cannot be inferred, `UnsupportedError` for a loop with a matrix product inside.
    """
    if isinstance(model, Path):
        model = read_onnx(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(onnx.inliner.inline_local_functions(model))
        if lengths := _metadata(model, "even_tokens"):
            _give_lengths(inferred.graph, lengths)
            inferred = onnx.shape_inference.infer_shapes(inferred)
    except onnx.shape_inference.InferenceError as error:
        raise UserError(f"shapes of the ONNX model cannot be inferred: {str(error).splitlines()[0]}") from error
    items = list(_Walker({}, {}).walk(inferred.graph))
    outputs = {output.name for output in inferred.graph.output}
    return _split(items, _tasks(model, outputs))


def _give_lengths(graph: onnx.GraphProto, lengths: Mapping[str, Any]) -> None:
    """Give the tensors of experts' own tokens, whose length depends on the image, the lengths that metadata tell."""
    known = {info.name: info for info in graph.value_info}
    for node in graph.node:
        for name in node.output:
            whole = known.get(node.input[0]) if node.op_type == "Split" and isinstance(lengths.get(name), int) else None
            if whole is not None:
                info = known.get(name) or graph.value_info.add()
                info.CopyFrom(whole)
                info.name = name
                info.type.tensor_type.shape.dim[0].dim_value = lengths[name]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _give_lengths(attribute.g, lengths)


def _metadata(model: onnx.ModelProto, key: str) -> dict[str, Any]:
    """A mapping that edgemtl wrote into the model; empty where there is none."""
    for entry in model.metadata_props:
        if entry.key == key:
            try:
                found = json.loads(entry.value)
            except ValueError:
                return {}
            return found if isinstance(found, dict) else {}
    return {}


def _tasks(model: onnx.ModelProto, outputs: Iterable[str]) -> dict[str, set[str]]:
    """Output tensors of each task: by the metadata that edgemtl writes, or every output for itself."""
    found: dict[str, set[str]] = {}
    for entry in model.metadata_props:
        if entry.key == "tasks":
            try:
                found = {str(task): {str(value["output"])} for task, value in json.loads(entry.value).items()}
            except (ValueError, KeyError, TypeError, AttributeError):
                found = {}
    named = {name for names in found.values() for name in names}
    return found if named and named <= set(outputs) else {name: {name} for name in outputs}


def _split(items: Sequence[_Item], tasks: Mapping[str, set[str]]) -> Cost:
    needed: dict[str, set[str]] = {}
    for task, names in tasks.items():
        for name in names:
            needed.setdefault(name, set()).add(task)
    owners: list[set[str]] = []
    for item in reversed(items):
        wanted_by = {task for name in item.writes for task in needed.get(name, ())}
        for name in item.reads:
            needed.setdefault(name, set()).update(wanted_by)
        owners.append(wanted_by)
    owners.reverse()
    pairs = [(item.count, wanted_by) for item, wanted_by in zip(items, owners, strict=True) if wanted_by]
    return Cost(
        total=_sum(count for count, _ in pairs),
        trunk=_sum(count for count, wanted_by in pairs if len(wanted_by) > 1),
        tasks={task: _sum(count for count, wanted_by in pairs if wanted_by == {task}) for task in tasks},
        paths={task: _sum(count for count, wanted_by in pairs if task in wanted_by) for task in tasks},
    )


def _sum(counts: Iterable[Count]) -> Count:
    total = Count()
    for count in counts:
        total += count
    return total


class _Walker:
    """Flattens a graph and its branches into items in order of execution, constants before their readers."""

    def __init__(self, shapes: Mapping[str, Shape], constants: Mapping[str, TensorProto]) -> None:
        self.shapes = dict(shapes)
        self.constants = dict(constants)

    def walk(self, graph: onnx.GraphProto) -> Iterator[_Item]:
        """Items of the graph; names of an inner graph must not hide outer ones (ONNX demands that)."""
        for info in (*graph.input, *graph.value_info, *graph.output):
            self.shapes.setdefault(info.name, _shape(info))
        self._settings = _only_settings(graph)
        for tensor in graph.initializer:
            self.constants[tensor.name] = tensor
            self.shapes[tensor.name] = tuple(tensor.dims)
            yield self._constant(tensor.name, tensor.data_type, math.prod(tensor.dims))
        for node in graph.node:
            yield from self._node(node)

    def _node(self, node: onnx.NodeProto) -> Iterator[_Item]:
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "If":
            yield from self._branches(node, [attributes[name].g for name in ("then_branch", "else_branch")])
        elif node.op_type == "Constant":
            yield from self._constant_node(node, attributes)
        elif node.op_type == "ConstantOfShape":
            yield self._filled(node, attributes)
        elif any(attribute.HasField("g") for attribute in node.attribute):
            raise UnsupportedError(
                f"{node.op_type} {node.name or node.output[0]} repeats a graph any number of times: not countable"
            )
        else:
            yield _Item(tuple(node.input), tuple(node.output), Count(flops=self._flops(node)))

    def _branches(self, node: onnx.NodeProto, graphs: Sequence[onnx.GraphProto]) -> Iterator[_Item]:
        found = [list(_Walker(self.shapes, self.constants).walk(graph)) for graph in graphs]
        flops = [sum(item.count.flops for item in items) for items in found]
        dearer = flops.index(max(flops))
        for number, (graph, items) in enumerate(zip(graphs, found, strict=True)):
            for item in items:
                if number != dearer:
                    item.count = Count(0, item.count.params, item.count.weight_bytes)
                yield item
            for inner, outer in zip(graph.output, node.output, strict=True):
                yield _Item((inner.name, *node.input), (outer,), Count())

    def _constant_node(self, node: onnx.NodeProto, attributes: Mapping[str, onnx.AttributeProto]) -> Iterator[_Item]:
        if "value" in attributes:
            tensor = attributes["value"].t
            self.constants[node.output[0]] = tensor
            self.shapes[node.output[0]] = tuple(tensor.dims)
            yield self._constant(node.output[0], tensor.data_type, math.prod(tensor.dims))
        else:
            yield _Item((), tuple(node.output), Count())

    def _filled(self, node: onnx.NodeProto, attributes: Mapping[str, onnx.AttributeProto]) -> _Item:
        """A constant given by its shape: it takes memory like any other once the graph is loaded."""
        shape = self.constants.get(node.input[0])
        if shape is None:
            return _Item(tuple(node.input), tuple(node.output), Count())
        size = tuple(int(side) for side in onnx.numpy_helper.to_array(shape))
        self.shapes[node.output[0]] = size
        kind = attributes["value"].t.data_type if "value" in attributes else TensorProto.FLOAT
        item = self._constant(node.output[0], kind, math.prod(size))
        return _Item(tuple(node.input), item.writes, item.count)

    def _constant(self, name: str, kind: int, elements: int) -> _Item:
        parameters = 0 if kind in _NOT_PARAMETERS or name in self._settings else elements
        return _Item((), (name,), Count(0, parameters, math.ceil(elements * _element_bytes(kind))))

    def _flops(self, node: onnx.NodeProto) -> int:
        if node.op_type not in _WEIGHT_INPUT or node.domain not in ("", "ai.onnx"):
            return 0
        first, weight = self._known(node, node.input[0]), self._known(node, node.input[_WEIGHT_INPUT[node.op_type]])
        output = self._known(node, node.output[0])
        if node.op_type == "Gemm":
            transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
            return 2 * math.prod(output) * first[0 if transposed else 1]
        if "MatMul" in node.op_type:
            return 2 * math.prod(output) * first[-1]
        if node.op_type == "ConvTranspose":
            return 2 * math.prod(first) * math.prod(weight[1:])
        return 2 * math.prod(output) * math.prod(weight[1:])

    def _known(self, node: onnx.NodeProto, name: str) -> tuple[int, ...]:
        shape = self.shapes.get(name)
        sides = [1 if side is None and axis == 0 else side for axis, side in enumerate(shape or ())]
        known = tuple(side for side in sides if side is not None)
        if shape is None or len(known) < len(sides):
            label = node.name or node.output[0]
            raise UserError(f"shape of {name!r} at {node.op_type} {label} is not fixed: export with a fixed input size")
        return known


def _shape(info: onnx.ValueInfoProto) -> Shape:
    """Sides of a tensor, None where the data decides; None for all of it where not even their number is known."""
    if not info.type.tensor_type.HasField("shape"):
        return None
    return tuple(side.dim_value if side.HasField("dim_value") else None for side in info.type.tensor_type.shape.dim)


def _element_bytes(kind: int) -> float:
    """Bytes of an element; four-bit types take half a byte, texts count for nothing."""
    if kind in (TensorProto.INT4, TensorProto.UINT4):
        return 0.5
    return 0.0 if kind == TensorProto.STRING else float(helper.tensor_dtype_to_np_dtype(kind).itemsize)


def _only_settings(graph: onnx.GraphProto) -> set[str]:
    """Constants that stand only where operators take settings."""
    settings: set[str] = set()
    parameters: set[str] = set()
    for node in graph.node:
        for number, name in enumerate(node.input):
            (settings if number and node.op_type in _SETTINGS else parameters).add(name)
    return settings - parameters
