"""Each operator of a graph in torch: the reference that engines are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from edgemtl.errors import UnsupportedError
from edgemtl.models.graph.graph import Graph, Node
from edgemtl.models.nets.experts import Combine, Dispatch, apply_capacity, sparse_gates
from edgemtl.models.nets.tokens import Attention, ToMap, ToTokens
from edgemtl.tasks import map_outputs

__all__ = ["operator_of", "run_graph"]

Operator = Callable[[Sequence[Tensor]], Tensor]


def _conv(node: Node) -> Operator:
    weight, bias, get = node.constants["weight"], node.constants.get("bias"), node.attributes
    strides, pads, dilations, group = (get["strides"], get["pads"][:2], get["dilations"], get["group"])
    return lambda x: F.conv2d(x[0], weight, bias, strides, pads, dilations, group)


def _gemm(node: Node) -> Operator:
    weight, bias = node.constants["weight"], node.constants.get("bias")
    return lambda x: F.linear(x[0], weight, bias)


def _norm(node: Node) -> Operator:
    c, epsilon = node.constants, float(node.attributes["epsilon"])
    return lambda x: F.batch_norm(x[0], c["mean"], c["variance"], c["weight"], c["bias"], eps=epsilon)


def _resize(node: Node) -> Operator:
    factor, linear = float(node.attributes["factor"]), node.attributes["mode"] == "linear"
    if linear:
        return lambda x: F.interpolate(x[0], scale_factor=factor, mode="bilinear", align_corners=False)
    return lambda x: F.interpolate(x[0], scale_factor=factor, mode="nearest")


def _clip(node: Node) -> Operator:
    low, high = float(node.attributes["low"]), float(node.attributes["high"])
    return lambda x: torch.clamp(x[0], low, high)


def _max_pool(node: Node) -> Operator:
    get = node.attributes
    kernel, strides, pads = get["kernel_shape"], get["strides"], get["pads"][:2]
    return lambda x: F.max_pool2d(x[0], kernel, strides, pads)


def _shuffle(node: Node) -> Operator:
    factor = int(node.attributes["blocksize"])
    return lambda x: F.pixel_shuffle(x[0], factor)


def _layer_norm(node: Node) -> Operator:
    weight, bias, epsilon = node.constants["weight"], node.constants["bias"], float(node.attributes["epsilon"])
    return lambda x: F.layer_norm(x[0], weight.shape, weight, bias, epsilon)


def _attention(node: Node) -> Operator:
    attend = Attention(int(node.attributes["heads"]), int(node.attributes["head_width"]))
    return lambda x: attend(*x)


def _router(node: Node) -> Operator:
    weight, bias, get = node.constants["weight"], node.constants["bias"], node.attributes
    top_k, renormalise, expert_capacity = int(get["top_k"]), bool(get["renormalise"]), int(get["expert_capacity"])
    return lambda x: apply_capacity(
        sparse_gates(torch.softmax(F.linear(x[0], weight, bias), -1), top_k, renormalise), expert_capacity
    )


def _to_map(node: Node) -> Operator:
    lay_out = ToMap(int(node.attributes["height"]), int(node.attributes["width"]))
    return lambda x: lay_out(x[0])


_OPERATORS: dict[str, Callable[[Node], Operator]] = {
    "Add": lambda _: lambda x: x[0] + x[1],
    "Attention": _attention,
    "BatchNormalization": _norm,
    "Clip": _clip,
    "Combine": lambda _: lambda x: Combine()(*x),
    "Concat": lambda _: lambda x: torch.cat(list(x), 1),
    "Conv": _conv,
    "DepthToSpace": _shuffle,
    "Flatten": lambda _: lambda x: x[0].flatten(1),
    "Gelu": lambda _: lambda x: F.gelu(x[0]),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda _: lambda x: x[0].mean((2, 3), keepdim=True),
    "HardSwish": lambda _: lambda x: F.hardswish(x[0]),
    "Identity": lambda _: lambda x: x[0],
    "LayerNormalization": _layer_norm,
    "MaxPool": _max_pool,
    "Mul": lambda _: lambda x: x[0] * x[1],
    "Relu": lambda _: lambda x: torch.relu(x[0]),
    "Resize": _resize,
    "Router": _router,
    "Sigmoid": lambda _: lambda x: torch.sigmoid(x[0]),
    "Dispatch": lambda node: lambda x: Dispatch()(x[0], x[1], int(node.attributes["position"])),
    "ToMap": _to_map,
    "ToTokens": lambda node: lambda x: ToTokens(int(node.attributes["tokens"]))(x[0]),
}


def operator_of(node: Node) -> Operator:
    """The function of a list of tensors that `node` computes, its constants bound."""
    if node.op not in _OPERATORS:
        raise UnsupportedError(f"operator {node.op} of {node.name} cannot be evaluated")
    return _OPERATORS[node.op](node)


def run_graph(
    graph: Graph, image: Tensor, observe: Callable[[str, Tensor], None] | None = None
) -> dict[str, dict[str, Tensor]]:
    """Outputs of the graph for `image` (N, 3, H, W) in FP32; `observe` sees every tensor by name, the image too."""
    values, last_use = {graph.input: image}, {name: node.name for node in graph.nodes for name in node.inputs}
    if observe:
        observe(graph.input, image)
    with torch.no_grad():
        for node in graph.nodes:
            values[node.output] = operator_of(node)([values[name] for name in node.inputs])
            if observe:
                observe(node.output, values[node.output])
            for name in node.inputs:
                if last_use[name] == node.name and name not in graph.output_tensors:
                    values.pop(name, None)
    return map_outputs(values.__getitem__, graph.outputs)
