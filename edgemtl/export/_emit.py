"""From a traced net to an ONNX model, without torch's own exporter: milliseconds instead of seconds.

One input `image` (1, 3, H, W), one output a task named like it. Node names carry the path of the module they come from,
and the metadata says which block belongs to which task, so that a profile of the file can be read block by block.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgemtl.errors import UnsupportedError
from edgemtl.models._graph import Graph, Node, trace

if TYPE_CHECKING:
    from edgemtl.models import MultiTaskNet

__all__ = ["GRAPH_SCHEMA", "OPSET", "emit", "emit_graph"]

GRAPH_SCHEMA = "edgemtl.graph/1"
OPSET = 17
_IR_VERSION = 9


def emit(net: MultiTaskNet) -> onnx.ModelProto:
    """The FP32 ONNX model (opset 17, batch 1) of a static net; `UnsupportedError` names what has no operator."""
    return emit_graph(trace(net))


def emit_graph(graph: Graph) -> onnx.ModelProto:
    """The FP32 ONNX model of a traced net; shapes of all tensors are inferred and stored."""
    writer = _Writer()
    for node in graph.nodes:
        writer.write(node)
    height, width = graph.input_size
    inputs = [helper.make_tensor_value_info(graph.input, TensorProto.FLOAT, [1, 3, height, width])]
    outputs = [helper.make_empty_tensor_value_info(name) for name in graph.outputs.values()]
    model = helper.make_model(
        helper.make_graph(writer.nodes, "edgemtl", inputs, outputs, list(writer.initializers.values())),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="edgemtl",
    )
    tasks = {task: {"output": name} for task, name in graph.outputs.items()}
    metadata = {
        "schema": GRAPH_SCHEMA,
        "tasks": tasks,
        "blocks": dict(graph.block_tasks),
        "units": {"flops": "2 per MAC"},
    }
    helper.set_model_props(model, {key: _text(value) for key, value in metadata.items()})
    return _with_shapes(model)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    known = {info.name: info for info in (*inferred.graph.value_info, *inferred.graph.output)}
    for output in model.graph.output:
        output.CopyFrom(known[output.name])
    model.graph.value_info.extend(inferred.graph.value_info)
    return model


class _Writer:
    """Collects ONNX nodes and initializers; a tensor that two operators share is stored once."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}
        self._stored: dict[int, str] = {}

    def write(self, node: Node) -> None:
        make = _WRITERS.get(node.op)
        if make is None:
            raise UnsupportedError(f"operator {node.op} of {node.name} cannot be written to ONNX")
        make(self, node)

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def add(self, node: Node, extra: list[str] | None = None, **attributes: Any) -> None:
        inputs = [*node.inputs, *(extra or [])]
        self.nodes.append(helper.make_node(node.op, inputs, [node.output], name=node.name, **attributes))

    def weights(self, node: Node) -> list[str]:
        names = []
        for key, tensor in node.constants.items():
            name = self._stored.setdefault(id(tensor), f"{node.name}.{key}")
            names.append(self.constant(name, tensor.numpy()))
        return names


def _plain(writer: _Writer, node: Node) -> None:
    writer.add(node, writer.weights(node), **node.attributes)


def _clip(writer: _Writer, node: Node) -> None:
    bounds = [np.float32(node.attributes[key]) for key in ("low", "high")]
    writer.add(node, [writer.constant(f"const.{value:g}", np.array(value)) for value in bounds])


def _resize(writer: _Writer, node: Node) -> None:
    factor = int(node.attributes["factor"])
    scales = writer.constant(f"const.scales{factor}", np.array([1, 1, factor, factor], np.float32))
    linear = node.attributes["mode"] == "linear"
    rule = {"coordinate_transformation_mode": "half_pixel"} if linear else {
        "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"
    }  # fmt: skip
    writer.add(node, ["", scales], mode=node.attributes["mode"], **rule)


def _shuffle(writer: _Writer, node: Node) -> None:
    writer.add(node, blocksize=node.attributes["blocksize"], mode="CRD")


_WRITERS: dict[str, Callable[[_Writer, Node], None]] = {
    **dict.fromkeys(
        ("Add", "BatchNormalization", "Concat", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "HardSwish", "Identity",
         "MaxPool", "Mul", "Relu", "Sigmoid"), _plain,
    ),
    "Clip": _clip,
    "DepthToSpace": _shuffle,
    "Resize": _resize,
}  # fmt: skip
