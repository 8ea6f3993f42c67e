"""From a traced net to an ONNX model, without torch's own exporter: milliseconds instead of seconds.

One input `image` (1, 3, H, W); a task's only output is named like the task, several are `TASK.OUTPUT`. Node names carry
the path of the module they come from, and the metadata says which block belongs to which task, so that a profile of the
file can be read block by block.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgemtl.errors import UnsupportedError
from edgemtl.models.graph import Graph, Node, trace
from edgemtl.targets.onnx import tokens
from edgemtl.targets.onnx.dispatch import DispatchPolicy
from edgemtl.targets.onnx.writer import Writer

if TYPE_CHECKING:
    from edgemtl.models import TaskNet

__all__ = ["GRAPH_SCHEMA", "OPSET", "emit", "emit_graph"]

GRAPH_SCHEMA = "edgemtl.graph/1"
OPSET = 17
_IR_VERSION = 9


def emit(net: TaskNet) -> onnx.ModelProto:
    """The FP32 ONNX model (opset 17, batch 1) of a static net; `UnsupportedError` names what has no operator."""
    return emit_graph(trace(net))


def emit_graph(graph: Graph, dispatch: DispatchPolicy = DispatchPolicy()) -> onnx.ModelProto:  # noqa: B008 (frozen)
    """The FP32 ONNX model of a traced net; shapes of all tensors are inferred and stored.

    `dispatch` says how experts get their tokens, where there are any.
    """
    writer = Writer(dispatch, _takers(graph))
    for node in graph.nodes:
        write = _WRITERS.get(node.op)
        if write is None:
            raise UnsupportedError(f"operator {node.op} of {node.name} cannot be written to ONNX")
        write(writer, writer.resolved(node))
    height, width = graph.input_size
    inputs = [helper.make_tensor_value_info(graph.input, TensorProto.FLOAT, [1, 3, height, width])]
    outputs = [helper.make_empty_tensor_value_info(name) for name in graph.output_tensors]
    model = helper.make_model(
        helper.make_graph(writer.nodes, "edgemtl", inputs, outputs, list(writer.initializers.values())),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
        producer_name="edgemtl",
    )
    tasks = {task: {"outputs": list(own.values())} for task, own in graph.outputs.items()}
    metadata = {
        "schema": GRAPH_SCHEMA,
        "tasks": tasks,
        "blocks": dict(graph.block_tasks),
        "units": {"flops": "2 per MAC"},
        **({"even_tokens": writer.even_tokens} if writer.even_tokens else {}),
    }
    helper.set_model_props(model, {key: _text(value) for key, value in metadata.items()})
    return _with_shapes(model)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    info_of = {info.name: info for info in (*inferred.graph.value_info, *inferred.graph.output)}
    for output in model.graph.output:
        output.CopyFrom(info_of[output.name])
    model.graph.value_info.extend(inferred.graph.value_info)
    return model


def _takers(graph: Graph) -> dict[str, list[str]]:
    """For each router's gates, what its experts' tokens are called, in the order of the gates."""
    takers: dict[str, list[str]] = {}
    for node in graph.nodes:
        if node.op == "Dispatch":
            takers.setdefault(node.inputs[1], []).append(node.output)
    return takers


def _plain(writer: Writer, node: Node) -> None:
    writer.add(node, writer.weights(node), **node.attributes)


def _clip(writer: Writer, node: Node) -> None:
    bounds = [np.float32(node.attributes[key]) for key in ("low", "high")]
    writer.add(node, [writer.constant(f"const.{value:g}", np.array(value)) for value in bounds])


def _resize(writer: Writer, node: Node) -> None:
    factor = int(node.attributes["factor"])
    scales = writer.constant(f"const.scales{factor}", np.array([1, 1, factor, factor], np.float32))
    linear = node.attributes["mode"] == "linear"
    rule = {"coordinate_transformation_mode": "half_pixel"} if linear else {
        "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"
    }  # fmt: skip
    writer.add(node, ["", scales], mode=node.attributes["mode"], **rule)


def _shuffle(writer: Writer, node: Node) -> None:
    writer.add(node, blocksize=node.attributes["blocksize"], mode="CRD")


_WRITERS: dict[str, Callable[[Writer, Node], None]] = {
    **dict.fromkeys(
        ("Add", "BatchNormalization", "Concat", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "HardSwish", "Identity",
         "LayerNormalization", "MaxPool", "Mul", "Relu", "Sigmoid"), _plain,
    ),
    "Attention": tokens.attention,
    "Clip": _clip,
    "Combine": tokens.combine,
    "DepthToSpace": _shuffle,
    "Gelu": tokens.gelu,
    "Resize": _resize,
    "Router": tokens.router,
    "Dispatch": tokens.dispatch,
    "ToMap": tokens.to_map,
    "ToTokens": tokens.to_tokens,
}  # fmt: skip
