"""Maxima over windows of a map that a `Pad` before them surrounds by values that never win, as PyTorch exports them.

Padded by themselves they give the same, and no infinite value stands where eight bits would need a range.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgemtl.own.folding import set_nodes

__all__ = ["pad_within_pools", "pads_below_all"]

_LOWEST = -1e30
"""The bound of values that no map has: minus infinity, or the least float, as TensorFlow writes it, is below."""


def pads_below_all(node: onnx.NodeProto, constants: Mapping[str, TensorProto]) -> bool:
    """Whether a node surrounds its input by a constant that is below every value."""
    name = node.input[2] if node.op_type == "Pad" and len(node.input) > 2 else ""
    if name not in constants or _attribute(node, "mode", b"constant") != b"constant":
        return False
    return bool((numpy_helper.to_array(constants[name]) < _LOWEST).all())


def pad_within_pools(graph: onnx.GraphProto, outputs: Collection[str]) -> None:
    """Let each `MaxPool` behind such a node pad for itself where it can, in place; `outputs` are tensors that stay."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    pools = {node.input[0]: node for node in graph.node if node.op_type == "MaxPool" and uses[node.input[0]] == 1}
    gone: list[onnx.NodeProto] = []
    for node in graph.node:
        pool = pools.get(node.output[0])
        if pool is None or node.output[0] in outputs or not pads_below_all(node, constants):
            continue
        if (pads := _joint_pads(node, pool, constants)) is not None:
            others = [attribute for attribute in pool.attribute if attribute.name not in ("pads", "auto_pad")]
            del pool.attribute[:]
            pool.attribute.extend([*others, helper.make_attribute("pads", pads)])
            pool.input[0] = node.input[0]
            gone.append(node)
    set_nodes(graph, [node for node in graph.node if not any(node is each for each in gone)])


def _joint_pads(node: onnx.NodeProto, pool: onnx.NodeProto, constants: Mapping[str, TensorProto]) -> list[int] | None:
    """The pads of both as one pool may have them; None where none may: a window would hold nothing but pads."""
    kernel, plain = _attribute(pool, "kernel_shape", []), len(node.input) < 4 or not node.input[3]
    if node.input[1] not in constants or not plain or _attribute(pool, "ceil_mode", 0):
        return None
    if _attribute(pool, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        return None
    ends = numpy_helper.to_array(constants[node.input[1]]).reshape(2, -1)
    own = np.array(_attribute(pool, "pads", [0] * 2 * len(kernel))).reshape(2, -1)
    if ends.shape[1] != len(kernel) + 2 or ends[:, :2].any() or (ends < 0).any():
        return None
    pads = ends[:, 2:] + own
    return [int(each) for each in pads.reshape(-1)] if (pads < np.array(kernel)).all() else None


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(each) for each in node.attribute if each.name == name), default)
