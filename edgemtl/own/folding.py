"""An ONNX graph for one image of one size: what does not depend on the image becomes a constant.

Exporters compute shapes in the graph, so that sizes may change. Once they are fixed, that part is evaluated here, by
ONNX Runtime and exactly; no operator on the image's way is changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from math import prod

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgemtl.errors import UnsupportedError, UserError, reason_of
from edgemtl.own.branches import take_branches
from edgemtl.own.refusals import LISTS

__all__ = ["fold_constants", "keep_named", "newer_opset", "open_session", "run_session", "set_nodes", "shape_of"]

_ROUNDS, _NEWER_OPSET = 6, 13
_LARGEST_VALUES = 1 << 22
"""Of a tensor that operators without a tensor to read make; a larger one is left to the runtime."""
_GROWING = ("ConstantOfShape", "EyeLike", "Expand", "Range", "Tile")
_NEVER = ("Bernoulli", "Multinomial", "RandomNormal", "RandomUniform")

Array = NDArray[np.generic]


def fold_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose constants are initializers, with the shapes that ONNX infers; inputs must have fixed sizes.

    Of an `If` whose condition is constant then, the branch that is taken stands in its place.
    """
    model = _constants_as_initializers(model)
    for _ in range(_ROUNDS):
        model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        known = _sizes(model.graph)
        fixed = _fixed(model.graph, known)
        model = _replaced(model, fixed, known) if fixed else model
        if take_branches(model):
            model = _constants_as_initializers(model)
        elif not fixed:
            break
    return _only_read(model)


def newer_opset(model: onnx.ModelProto, what: str, least: int) -> onnx.ModelProto:
    """A copy of ONNX's operator set `least` or newer; what is older is brought to 13, and folded again.

    Raises `UnsupportedError` where ONNX's converter cannot.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    version = next((each.version for each in copy.opset_import if each.domain in ("", "ai.onnx")), least)
    if version >= least:
        return copy
    try:
        converted = onnx.version_converter.convert_version(copy, _NEWER_OPSET)
    except Exception as error:  # the converter's own kinds
        raise UnsupportedError(
            f"{what} is of ONNX's operator set {version}, which cannot be brought to {_NEWER_OPSET} "
            f"({reason_of(error)}): export it again with a newer one"
        ) from error
    folded = fold_constants(converted)
    known = {info.name for info in (*folded.graph.value_info, *folded.graph.output)}
    folded.graph.value_info.extend(info for info in model.graph.value_info if info.name not in known)
    return folded


def shape_of(info: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    """The sizes of a tensor; None where the rank or a size is open."""
    kind = info.type.tensor_type
    if not kind.HasField("shape"):
        return None
    sizes = [side.dim_value if side.HasField("dim_value") else -1 for side in kind.shape.dim]
    return None if min(sizes, default=0) < 0 else tuple(sizes)


def open_session(content: bytes, what: str, optimize: bool = True) -> onnxruntime.InferenceSession:
    """Plain ONNX Runtime on a model; `UserError` where it cannot open `what`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own kinds
        raise UserError(
            f"ONNX Runtime {onnxruntime.__version__} cannot open {what} ({reason_of(error)}): export it again"
        ) from error


def run_session(
    session: onnxruntime.InferenceSession, tensors: Sequence[str], feeds: Mapping[str, Array], what: str
) -> list[Array]:
    """The values of tensors; `UserError` where `what` fails on these feeds."""
    try:
        return list(session.run(list(tensors), dict(feeds)))
    except Exception as error:  # the runtime's own kinds
        raise UserError(
            f"{what} does not run ({reason_of(error)}): choose another --size, or export it again"
        ) from error


def _constants_as_initializers(model: onnx.ModelProto) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    nodes = []
    for node in graph.node:
        value = _value(node) if node.op_type == "Constant" else None
        if value is None:
            nodes.append(node)
        else:
            graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
    set_nodes(graph, nodes)
    return result


def _value(node: onnx.NodeProto) -> Array | None:
    attribute = node.attribute[0]
    if attribute.name == "value":
        return numpy_helper.to_array(attribute.t)
    if attribute.name.startswith(("value_float", "value_int")):
        kind = np.float32 if "float" in attribute.name else np.int64
        return np.array(helper.get_attribute_value(attribute), kind)
    return None


def _sizes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    infos = (*graph.input, *graph.value_info, *graph.output)
    return {info.name: sizes for info in infos if (sizes := shape_of(info)) is not None}


def _fixed(graph: onnx.GraphProto, known: Mapping[str, tuple[int, ...]]) -> list[onnx.NodeProto]:
    """Operators whose result the image does not change, in order."""
    constant = {tensor.name for tensor in graph.initializer} | {""}
    fixed = []
    for node in graph.node:
        if node.op_type in ("Shape", "Size"):
            is_fixed = node.input[0] in known or node.input[0] in constant
        else:
            is_fixed = constant.issuperset(node.input) and _may_fold(node, known)
        if is_fixed:
            fixed.append(node)
            constant.update(node.output)
    return fixed


def _may_fold(node: onnx.NodeProto, known: Mapping[str, tuple[int, ...]]) -> bool:
    if node.op_type.startswith(_NEVER) or node.op_type in LISTS or node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type == "DequantizeLinear" or any(attribute.HasField("g") for attribute in node.attribute):
        return False
    sizes = known.get(node.output[0])
    return node.op_type not in _GROWING or sizes is None or prod(sizes) <= _LARGEST_VALUES


def _replaced(
    model: onnx.ModelProto, fixed: Sequence[onnx.NodeProto], known: Mapping[str, tuple[int, ...]]
) -> onnx.ModelProto:
    """The model with the results of `fixed` in place of those operators."""
    graph = model.graph
    outputs = {info.name for info in graph.output}
    gone = {id(node) for node in fixed}
    left = [node for node in graph.node if id(node) not in gone]
    read = {name for node in left for name in node.input} | outputs
    wanted = [name for node in fixed for name in node.output if name in read]
    values = _evaluate(model, fixed, known, wanted)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in values.items())
    set_nodes(graph, left)
    return model


def _evaluate(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    known: Mapping[str, tuple[int, ...]],
    wanted: Sequence[str],
) -> dict[str, Array]:
    """The `wanted` results of operators that read constants, and shapes of tensors whose sizes are `known`."""
    written = {name for node in nodes for name in node.output}
    read = {name for node in nodes for name in node.input}
    constants = [tensor for tensor in model.graph.initializer if tensor.name in read]
    held = {tensor.name for tensor in constants}
    inputs, feeds = [], {}
    for name in sorted(read - held - written - {""}):  # tensors on the image's way, of which the sizes alone are read
        info = helper.make_tensor_value_info(name, _kind_of(model.graph, name), known[name])
        inputs.append(info)
        feeds[name] = np.zeros(known[name], helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type))
    part = onnx.ModelProto()
    part.CopyFrom(model)
    part.graph.CopyFrom(
        helper.make_graph(nodes, "constants", inputs, [onnx.ValueInfoProto(name=name) for name in wanted], constants)
    )
    if not wanted:
        return {}
    session = open_session(part.SerializeToString(), "the constant part of the net", optimize=False)
    return dict(zip(wanted, session.run(list(wanted), feeds), strict=True))


def _kind_of(graph: onnx.GraphProto, name: str) -> int:
    infos = (*graph.input, *graph.value_info, *graph.output)
    return next(int(info.type.tensor_type.elem_type) for info in infos if info.name == name)


def _only_read(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without initializers and shapes of tensors that nothing reads any more."""
    graph = model.graph
    read = {name for node in graph.node for name in node.input} | {info.name for info in graph.output}
    written = {name for node in graph.node for name in node.output}
    keep_named(graph.initializer, read)
    keep_named(graph.value_info, written - {info.name for info in graph.output})
    keep_named(graph.input, {info.name for info in graph.input} - {tensor.name for tensor in graph.initializer})
    return model


def keep_named(items: Iterable[object], names: Collection[str]) -> None:
    """Drop what is not called by one of these names from a graph's list, in place."""
    kept = [item for item in items if item.name in names]  # type: ignore[attr-defined]
    copies = [type(item).FromString(item.SerializeToString()) for item in kept]  # type: ignore[attr-defined]
    del items[:]  # type: ignore[attr-defined]
    items.extend(copies)  # type: ignore[attr-defined]


def set_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Put these operators in place of a graph's own, of which they may be some."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
