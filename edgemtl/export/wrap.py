"""Normalisation and post-processing inside an ONNX model, for those who deploy it alone.

Both are the steps of `edgemtl.runtime` in the same order, so that a model with them inside gives what `Engine.predict`
does: to the bit but for what `exp` and its like are rounded to by each library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgemtl.errors import UnsupportedError
from edgemtl.files.images import IMAGE_MEAN, IMAGE_STD
from edgemtl.tasks import IMAGE_INPUT, Task

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
    maker = _Maker(graph, "normalisation")
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
        if task.postprocess not in _STEPS:
            raise UnsupportedError(
                f"post-processing {task.postprocess} of task {task.name} cannot be put into a model: export without "
                f"--with-postprocessing; these can: {', '.join(sorted(_STEPS))}"
            )
        for output in task.outputs:
            _append(graph, output.name, task.postprocess)
    return with_shapes(result)


def with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the shape of every tensor that ONNX's inference can tell, outputs above all."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(inferred)
    return inferred


def _append(graph: onnx.GraphProto, name: str, step: str) -> None:
    """Put a step between the raw tensor, under another name from here on, and the output `name`."""
    info = next(info for info in graph.output if info.name == name)
    shape = [size.dim_value for size in info.type.tensor_type.shape.dim]
    raw = f"{name}.raw"
    _rename(graph, {name: raw})
    maker = _Maker(graph, f"postprocessing.{name}")
    last = _STEPS[step](maker, raw, shape)
    maker.node("Identity", [last], "", output=name)
    kind = TensorProto.INT64 if step == "argmax" else TensorProto.FLOAT
    info.CopyFrom(helper.make_tensor_value_info(name, kind, None))
    graph.node.extend(maker.nodes)


class _Maker:
    """Collects the nodes of one step, whose name begins all of theirs."""

    def __init__(self, graph: onnx.GraphProto, name: str) -> None:
        self.graph, self.name = graph, name
        self.nodes: list[onnx.NodeProto] = []

    def node(self, op: str, inputs: Sequence[str], label: str, output: str = "", **attributes: Any) -> str:
        """Append a node; the name of its output."""
        made = output or f"{self.name}.{label}"
        self.nodes.append(helper.make_node(op, list(inputs), [made], name=made, **attributes))
        return made

    def constant(self, label: str, value: NDArray[np.generic] | np.generic) -> str:
        """Add an initializer; its name."""
        name = f"{self.name}.{label}"
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def axes(self, *axes: int) -> str:
        """Axes as the initializer that newer operators take them in."""
        return self.constant(f"axes{'_'.join(map(str, axes))}", np.array(axes, np.int64))


def _argmax(maker: _Maker, raw: str, shape: Sequence[int]) -> str:
    return maker.node("ArgMax", [raw], "class", axis=1, keepdims=0)


def _exp(maker: _Maker, raw: str, shape: Sequence[int]) -> str:
    return maker.node("Exp", [_single(maker, raw, shape)], "metres")


def _normalize(maker: _Maker, raw: str, shape: Sequence[int]) -> str:
    squares = maker.node("Mul", [raw, raw], "squares")
    total = maker.node("ReduceSum", [squares, maker.axes(1)], "total", keepdims=1)
    length = maker.node("Sqrt", [total], "length")
    divisor = maker.node("Max", [length, maker.constant("least", np.float32(1e-12))], "divisor")
    return maker.node("Transpose", [maker.node("Div", [raw, divisor], "unit")], "last", perm=[0, 2, 3, 1])


def _sigmoid(maker: _Maker, raw: str, shape: Sequence[int]) -> str:
    return maker.node("Sigmoid", [_single(maker, raw, shape)], "probability")


def _softmax(maker: _Maker, raw: str, shape: Sequence[int]) -> str:
    return maker.node("Softmax", [raw], "probabilities", axis=1)


def _peaks(maker: _Maker, raw: str, shape: Sequence[int]) -> str:
    """Of each channel the column, the row and the value of the largest place: (1, C, 3)."""
    flat = maker.node("Reshape", [raw, maker.constant("flat", np.array([*shape[:2], -1], np.int64))], "places")
    best = maker.node("ArgMax", [flat], "best", axis=2, keepdims=1)
    width = maker.constant("width", np.int64(shape[3]))
    column, row = (maker.node(op, [best, width], label) for op, label in (("Mod", "column"), ("Div", "row")))
    x, y = (maker.node("Cast", [position], f"{position}.float", to=TensorProto.FLOAT) for position in (column, row))
    value = maker.node("GatherElements", [flat, best], "value", axis=2)
    return maker.node("Concat", [x, y, value], "peaks", axis=2)


def _none(maker: _Maker, raw: str, shape: Sequence[int]) -> str:
    return raw


_STEPS: dict[str, Callable[[_Maker, str, Sequence[int]], str]] = {
    "argmax": _argmax,
    "exp": _exp,
    "none": _none,
    "normalize": _normalize,
    "peaks": _peaks,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
}


def _single(maker: _Maker, raw: str, shape: Sequence[int]) -> str:
    """Without the channel axis where a map has one channel only."""
    return maker.node("Squeeze", [raw, maker.axes(1)], "map") if len(shape) > 2 and shape[1] == 1 else raw


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
