"""MACs of an ONNX model by another way than the package's: every product is run on ones, and its values are summed.

With ones for both factors an output value of a linear operator is the number of products that went into it. Padding is
filled with ones too, since the convention of the field counts it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "FusedMatMul", "FusedConv", "FusedGemm")
RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}
_GONE = ("activation", "activation_params", "pads", "auto_pad", "alpha", "beta")


def true_macs(model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]) -> dict[str, dict[int, int]]:
    """MACs of every node that multiplies, by its place in the graph, for each output that needs it."""
    values = _all_values(model, feeds)
    macs = {index: _node_macs(model, node, values) for index, node in enumerate(model.graph.node)}
    return {
        output.name: {index: macs[index] for index in _needed(model.graph, output.name) if macs[index]}
        for output in model.graph.output
    }


def _all_values(model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    have = {info.name for info in opened.graph.output}
    for node in model.graph.node:
        for name in node.output:
            if name and name not in have:
                opened.graph.output.append(helper.make_empty_tensor_value_info(name))
    names = [info.name for info in opened.graph.output]
    values = dict(zip(names, run(opened, feeds), strict=True)) | dict(feeds)
    return values | {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def run(model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]) -> list[Any]:
    """All outputs, computed without optimisation."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(feeds)))


def kinds(model: onnx.ModelProto) -> Counter[str]:
    """How many operators of each type a model has."""
    return Counter(node.op_type for node in model.graph.node)


def _needed(graph: onnx.GraphProto, output: str) -> list[int]:
    """Places of the nodes on any way to an output."""
    makers = {name: index for index, node in enumerate(graph.node) for name in node.output if name}
    found: set[int] = set()
    todo = [output]
    while todo:
        index = makers.get(todo.pop())
        if index is not None and index not in found:
            found.add(index)
            todo += graph.node[index].input
    return sorted(found)


def _node_macs(model: onnx.ModelProto, node: onnx.NodeProto, values: Mapping[str, NDArray[Any]]) -> int:
    if node.op_type in RECURRENT:
        return _recurrent_macs(node, values)
    if node.op_type not in LINEAR:
        return 0
    factors = [
        np.ones(values[name].shape, np.float32) for name in node.input[: 2 if node.op_type != "Einsum" else None]
    ]
    if "Conv" in node.op_type:
        factors[0] = _padded(node, factors[0])
    kept = [each for each in node.attribute if each.name not in _GONE]
    names = [f"f{index}" for index in range(len(factors))]
    alone = helper.make_node(node.op_type.replace("FusedConv", "Conv"), names, ["y"], domain=node.domain)
    alone.domain = "com.microsoft" if alone.op_type.startswith("Fused") else ""
    if alone.op_type == "FusedGemm":
        alone.op_type, alone.domain = "Gemm", ""
    alone.attribute.extend(kept)
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (*names, "y")]
    graph = helper.make_graph([alone], "alone", infos[:-1], infos[-1:])
    single = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    return int(run(single, dict(zip(names, factors, strict=True)))[0].astype(np.float64).sum())


def _padded(node: onnx.NodeProto, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The image with its padding, of a convolution; a transposed one crops its output instead."""
    pads = next((list(each.ints) for each in node.attribute if each.name == "pads"), [0] * 2 * (image.ndim - 2))
    if node.op_type == "ConvTranspose":
        return image
    half = len(pads) // 2
    return np.pad(image, [(0, 0), (0, 0), *zip(pads[:half], pads[half:], strict=True)], constant_values=1)


def _recurrent_macs(node: onnx.NodeProto, values: Mapping[str, NDArray[Any]]) -> int:
    """Steps of every sequence and direction, each a product with the weights of the input and one with the state's."""
    (steps, batch, width), (directions, rows, state) = (values[node.input[index]].shape for index in (0, 2))
    assert rows == RECURRENT[node.op_type] * state
    return int(steps * batch * directions * RECURRENT[node.op_type] * (width * state + state * state))
