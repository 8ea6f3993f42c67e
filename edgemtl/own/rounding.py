"""A net of one's own in INT8 block by block: its graph made ready for the quantizer, and ranges from photos.

What the quantizer takes for granted in edgemtl's own graphs is made so here: normalisations and constant factors are
folded into their convolutions, each layer has constants of its own, and operators that cannot be rounded as their kind
is (another layout of weights, other types, a mode that no runtime has in eight bits) say so in their `doc_string`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgemtl.errors import UserError
from edgemtl.models.quantization import WEIGHTED, QuantScheme, RangeObserver, Ranges
from edgemtl.own.folding import keep_named, newer_opset, open_session, run_session, shape_of
from edgemtl.own.fusing import fuse_layers, linear_from_products
from edgemtl.own.pools import pad_within_pools, pads_below_all
from edgemtl.runtime import block_of
from edgemtl.targets import TaskModel, quantize

__all__ = ["calibrate_model", "ready_for_rounding", "rounded_blocks", "rounded_model", "share_constants"]

_OPSET = 13
"""The first operator set with a scale for each channel."""
_MAP_AXES = 4


def ready_for_rounding(model: TaskModel) -> TaskModel:
    """The same net with operators as `edgemtl.targets.quantize` reads them; no output changes by more than rounding.

    Raises `UnsupportedError` for an operator set that cannot be brought to one that rounds channel by channel.
    """
    graph_model = newer_opset(model.model, "a net for INT8", _OPSET)
    outputs = [name for own in model.outputs.values() for name in own.values()]
    pad_within_pools(graph_model.graph, outputs)
    linear_from_products(graph_model.graph, outputs)
    fuse_layers(graph_model.graph, outputs)
    _align_linear(graph_model.graph)
    _separate_constants(graph_model.graph)
    facts = _Facts(graph_model.graph)
    for node in graph_model.graph.node:
        node.doc_string = "" if facts.is_plain(node) else f"{node.op_type} in float"
    return replace(model, model=graph_model)


def rounded_blocks(model: TaskModel) -> tuple[str, ...]:
    """Names of the blocks that have a layer which INT8 changes, in order; `model` is ready for rounding."""
    layers = (node for node in model.model.graph.node if node.op_type in WEIGHTED and not node.doc_string)
    return tuple(dict.fromkeys(block_of(node.name) for node in layers))


def calibrate_model(model: TaskModel, images: Iterable[NDArray[np.float32]], count: int) -> Ranges:
    """Ranges of all tensors that INT8 may round, over `count` images as the net reads them, (1, 3, H, W).

    `model` is ready for rounding. Raises `UserError` where there is no image, or a value is not finite.
    """
    if not count:
        raise UserError("no calibration image was given: INT8 needs at least one, thirty are better")
    graph, image_name = model.model.graph, model.model.graph.input[0].name
    facts = _Facts(graph)
    plain = [node for node in graph.node if node.op_type in _ROUNDED and not node.doc_string]
    named = dict.fromkeys(name for node in plain for name in (*node.input, node.output[0]))
    tensors = [name for name in named if name and name not in facts.constants and facts.is_float(name)]
    probe = onnx.ModelProto()
    probe.CopyFrom(model.model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name != image_name)
    session, observer = open_session(probe.SerializeToString(), "the net for calibration"), RangeObserver(count)
    read = [name for name in tensors if name != image_name]
    for image in images:
        observer(image_name, image)
        for name, value in zip(read, run_session(session, read, {image_name: image}, "the net"), strict=True):
            observer(name, np.asarray(value, np.float32))
    return Ranges(observer.ranges())


def rounded_model(model: TaskModel, precision: Mapping[str, str], ranges: Ranges, scheme: QuantScheme) -> TaskModel:
    """The net with INT8 where `precision` says so, as `scheme` writes it; `model` is ready for rounding."""
    return replace(model, model=quantize(model.model, precision, ranges, scheme))


def share_constants(graph: onnx.GraphProto) -> None:
    """Let layers in float that have equal weights or biases read one of them, in place.

    Each layer was given its own to be rounded; what stayed in float is stored once again.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
    first: dict[tuple[tuple[int, ...], bytes], str] = {}
    for node in (each for each in graph.node if each.op_type in WEIGHTED):
        for number, name in enumerate(node.input):
            if number and name in constants:
                values = numpy_helper.to_array(constants[name])
                node.input[number] = first.setdefault((values.shape, values.tobytes()), name)
    keep_named(graph.initializer, {name for node in graph.node for name in node.input})


class _Facts:
    """Constants and tensors of a graph, as far as they decide whether an operator can be rounded."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.infos = {info.name: info for info in (*graph.input, *graph.value_info, *graph.output)}
        self.unbounded = {node.output[0] for node in graph.node if pads_below_all(node, self.constants)}

    def is_float(self, name: str) -> bool:
        """Whether a tensor holds float32."""
        return name in self.infos and self.infos[name].type.tensor_type.elem_type == TensorProto.FLOAT

    def is_plain(self, node: onnx.NodeProto) -> bool:
        """Whether an operator may be rounded as its kind is."""
        ends = (*node.input[:1], *node.output[:1])
        if node.domain not in ("", "ai.onnx") or not all(self.is_float(name) for name in ends):
            return False
        check = _CHECKS.get(node.op_type)
        return check is None or check(self, node)

    def has_weights(self, node: onnx.NodeProto) -> bool:
        """Whether weights and bias are float32 constants."""
        kinds = (self.constants[name].data_type if name in self.constants else None for name in node.input[1:])
        return all(kind == TensorProto.FLOAT for kind in kinds)

    def is_aligned(self, node: onnx.NodeProto) -> bool:
        """Whether a linear layer's weights have their output channels first, and nothing else is in it."""
        attributes = _attributes(node)
        plain = attributes.get("alpha", 1.0) == attributes.get("beta", 1.0) == 1.0 and not attributes.get("transA")
        return plain and bool(attributes.get("transB")) and self.has_weights(node)

    def sums_alike(self, node: onnx.NodeProto) -> bool:
        """Whether a sum is of two tensors of one shape that both depend on the image."""
        if len(node.input) != 2 or not self.constants.keys().isdisjoint(node.input):
            return False
        shapes = [shape_of(self.infos[name]) if name in self.infos else None for name in node.input]
        return shapes[0] is not None and shapes[0] == shapes[1]

    def has_bounds(self, node: onnx.NodeProto) -> bool:
        """Whether the bounds of a clip are constants."""
        return all(not name or name in self.constants for name in node.input[1:])

    def pools(self, node: onnx.NodeProto) -> bool:
        """Whether a pooling gives values alone, of a map whose values have a range."""
        return len(node.output) == 1 and node.input[0] not in self.unbounded

    def resizes(self, node: onnx.NodeProto) -> bool:
        """Whether values of a map are repeated: where they are blended, eight bits take longer, and round down."""
        shape = shape_of(self.infos[node.input[0]])
        return _attributes(node).get("mode", b"nearest") == b"nearest" and shape is not None and len(shape) == _MAP_AXES


_CHECKS = {
    "Add": _Facts.sums_alike,
    "Clip": _Facts.has_bounds,
    "Conv": _Facts.has_weights,
    "Gemm": _Facts.is_aligned,
    "MaxPool": _Facts.pools,
    "Resize": _Facts.resizes,
}


_ROUNDED = (*_CHECKS, "DepthToSpace", "Relu")
"""Operators that a scheme may round at their ends."""


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _align_linear(graph: onnx.GraphProto) -> None:
    """Turn the weights of linear layers so that their output channels come first, in place."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "Gemm" else None
        if weight is None or _attributes(node).get("transB"):
            continue
        turned = f"{node.name}.turned"
        graph.initializer.append(numpy_helper.from_array(numpy_helper.to_array(weight).T.copy(), turned))
        node.input[1] = turned
        others = [attribute for attribute in node.attribute if attribute.name != "transB"]
        del node.attribute[:]
        node.attribute.extend([*others, helper.make_attribute("transB", 1)])


def _separate_constants(graph: onnx.GraphProto) -> None:
    """Give each layer its own weights and bias, in place: how they are rounded follows from what enters the layer."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    for node in (each for each in graph.node if each.op_type in WEIGHTED):
        while len(node.input) > 2 and not node.input[-1]:
            del node.input[-1]
        for number, name in enumerate(node.input):
            if number and name in constants and uses[name] > 1:
                uses[name] -= 1
                twin = graph.initializer.add()
                twin.CopyFrom(constants[name])
                twin.name = node.input[number] = f"{node.name}.constant{number}"
    keep_named(graph.initializer, {name for node in graph.node for name in node.input})
