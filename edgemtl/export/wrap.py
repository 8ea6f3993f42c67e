"""Normalisation and post-processing inside an ONNX model, for those who deploy it alone.

Both are the steps of `edgemtl.runtime` in the same order, so that a model with them inside gives what `Engine.predict`
does: to the bit but for what `exp` and its like are rounded to by each library.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgemtl.files.images import IMAGE_MEAN, IMAGE_STD
from edgemtl.tasks import IMAGE_INPUT, Task, kind_of

__all__ = ["with_normalisation", "with_postprocessing", "with_shapes"]


def with_normalisation(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with an input `image` of bytes (1, H, W, 3), RGB, in place of the normalised one (1, 3, H, W)."""
    result = _copy(model)
    graph = result.graph
    inner = f"{IMAGE_INPUT}.normalised"
    _rename(graph, {IMAGE_INPUT: inner})
    info = graph.input[0]
    _, _, height, width = (size.dim_value for size in info.type.tensor_type.shape.dim)
    info.CopyFrom(helper.make_tensor_value_info(IMAGE_INPUT, TensorProto.UINT8, [1, height, width, 3]))
    maker = _Maker(graph, "normalisation", {})
    value = maker.node("Cast", [IMAGE_INPUT], "float", to=TensorProto.FLOAT)  # all that TensorRT does with bytes
    value = maker.node("Transpose", [value], "channels", perm=[0, 3, 1, 2])
    value = maker.node("Div", [value, maker.constant("divisor", np.float32(255))], "scaled")
    value = maker.node("Sub", [value, maker.constant("mean", _channels(IMAGE_MEAN))], "centred")
    maker.node("Div", [value, maker.constant("std", _channels(IMAGE_STD))], "", output=inner)
    before = maker.nodes
    nodes = [*before, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return with_shapes(result)


def with_postprocessing(model: onnx.ModelProto, tasks: Iterable[Task]) -> onnx.ModelProto:
    """The model whose outputs are predictions with a batch of one before them: (1, H, W) metres, and so on.

    Raises `UnsupportedError` for a task whose post-processing has no operators here.
    """
    result = _copy(model)
    graph = result.graph
    for task in tasks:
        _append(graph, task)
    return with_shapes(result)


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the shape of every tensor that ONNX's inference finds, outputs above all."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(inferred)
    return inferred


def _append(graph: onnx.GraphProto, task: Task) -> None:
    """Put a task's step between its raw tensors, under other names from here on, and its outputs."""
    tensors = task.tensors
    infos = {info.name: info for info in graph.output}
    _rename(graph, {name: f"{name}.raw" for name in tensors.values()})
    shapes = {f"{name}.raw": [size.dim_value for size in infos[name].type.tensor_type.shape.dim] for name in infos}
    maker = _Maker(graph, f"postprocessing.{task.name}", shapes)
    raw = {output: f"{name}.raw" for output, name in tensors.items()}
    for output, last in kind_of(task).append_decoding(task, maker, raw).items():
        maker.node("Identity", [last], "", output=tensors[output])
        infos[tensors[output]].ClearField("type")  # inference tells it
    graph.node.extend(maker.nodes)
    types = [info for info in graph.value_info if info.name not in infos]
    del graph.value_info[:]
    graph.value_info.extend(types)


class _Maker:
    """Collects the nodes of one task, whose name begins all of theirs; labels that repeat are numbered."""

    def __init__(self, graph: onnx.GraphProto, name: str, shapes: Mapping[str, Sequence[int]]) -> None:
        self.graph, self.name, self.shapes = graph, name, shapes
        self.nodes: list[onnx.NodeProto] = []
        self._labels: Counter[str] = Counter()

    def _unique(self, label: str) -> str:
        self._labels[label] += 1
        number = self._labels[label]
        return f"{self.name}.{label}" if number == 1 else f"{self.name}.{label}_{number}"

    def node(self, op: str, inputs: Sequence[str], label: str, output: str = "", **attributes: Any) -> str:
        """Append a node; the name of its output."""
        made = output or self._unique(label)
        self.nodes.append(helper.make_node(op, list(inputs), [made], name=made, **attributes))
        return made

    def constant(self, label: str, value: NDArray[np.generic] | np.generic) -> str:
        """Add an initializer; its name."""
        name = self._unique(label)
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def shape(self, tensor: str) -> Sequence[int]:
        """The sizes of a raw tensor."""
        return self.shapes[tensor]


def _channels(values: Sequence[float]) -> NDArray[np.float32]:
    return np.array(values, np.float32).reshape(1, -1, 1, 1)


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Give tensors other names wherever nodes read or write them."""
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
