"""Shapes of the tensors that a count needs: inferred from the file, or else observed in a run.

Open sizes of inputs are settled before anything is inferred, since a batch that is folded into another axis cannot be
told apart afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from edgemtl.graphs import Shape, UnknownOperatorError, UnknownShapeError, bodies, has_rule, macs_of, read_by
from edgemtl.profiling.bounded import FATAL, run_once
from edgemtl.profiling.inline import inlined
from edgemtl.profiling.inputs import ModelInput, made_up

__all__ = ["declared_kinds", "declared_shapes", "known_model", "multiplies", "shape_of"]

FIRST_OPSET = 17
NESTED_LOOPS = 4
_KINDS = {f"tensor({name.lower()})": kind for name, kind in TensorProto.DataType.items()}
"""ONNX Runtime's names of element types."""


def known_model(
    model: onnx.ModelProto,
    inputs: Sequence[ModelInput],
    integers: int,
    folder: Path | None,
    lengths: Mapping[str, Any],
    every: bool = False,
) -> tuple[onnx.ModelProto, str]:
    """A copy of a model, its functions inlined, with the shapes that a count needs, and why some lack ("" for none).

    `every` asks for the shapes and element types of all tensors, not those of products alone.

    Where a run is needed, integer inputs are `integers`, and external data lie in `folder`. `lengths` are sizes of
    first axes that the data decide and the file tells. Every `Loop` has a last output more, as long as its iterations.
    """
    model = inlined(model)
    _tell_turns(model.graph)
    _settle(model.graph, {each.name: each.sizes for each in inputs})
    inferred = _inferred(model)
    if lengths:
        _give_lengths(inferred.graph, lengths)
        inferred = _inferred(inferred)
    missing = _missing(inferred.graph, {})
    untold = _untold(inferred.graph) if every else set[str]()
    if not missing | untold:
        return inferred, ""
    try:
        run = partial(_shapes_by_running, model, feeds=made_up(inputs, integers, "the model"), folder=folder)
        try:
            shapes, kinds = run(missing | untold)
        except Exception:  # of a tensor that only `every` asks for, perhaps
            if not missing or missing >= untold:
                raise
            shapes, kinds = run(missing)
    except Exception as error:  # any failure of the runtime on an untrusted file becomes a note of the count
        return inferred, (str(error).strip() or type(error).__name__).splitlines()[0]
    _give_shapes(inferred.graph, shapes, kinds)
    return _inferred(inferred), ""


def shape_of(info: onnx.ValueInfoProto) -> Shape | None:
    """Shape of a tensor; None if its rank or one of its sizes is unknown."""
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    sides = [side.dim_value if side.HasField("dim_value") else -1 for side in tensor.shape.dim]
    return None if min(sides, default=0) < 0 else tuple(sides)


def declared_shapes(graph: onnx.GraphProto) -> dict[str, Shape]:
    """Shapes that a graph declares for its tensors."""
    infos = (*graph.input, *graph.value_info, *graph.output)
    shapes = {info.name: shape for info in infos if (shape := shape_of(info)) is not None}
    for tensor in graph.initializer:
        shapes[tensor.name] = tuple(tensor.dims)
    for sparse in graph.sparse_initializer:
        shapes[sparse.values.name] = tuple(sparse.dims)
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                shapes[node.output[0]] = tuple(attribute.t.dims)
    return shapes


def declared_kinds(graph: onnx.GraphProto) -> dict[str, int]:
    """Element types that a graph declares for its tensors."""
    infos = (*graph.input, *graph.value_info, *graph.output)
    kinds = {info.name: info.type.tensor_type.elem_type for info in infos if info.type.tensor_type.elem_type}
    return kinds | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _settle(graph: onnx.GraphProto, sizes: Mapping[str, Shape]) -> None:
    """Write input sizes into a graph, and drop declared shapes of other tensors that depended on them."""
    was_open = False
    for info in graph.input:
        if info.name in sizes and shape_of(info) != sizes[info.name]:
            was_open = True
            _write(info, sizes[info.name])
    for info in (*graph.value_info, *graph.output):
        if info.type.HasField("tensor_type") and (was_open or shape_of(info) is None):
            info.type.tensor_type.ClearField("shape")


def _write(info: onnx.ValueInfoProto, shape: Shape) -> None:
    info.type.tensor_type.ClearField("shape")
    info.type.tensor_type.shape.SetInParent()  # a scalar has a shape without sizes
    info.type.tensor_type.shape.dim.extend(onnx.TensorShapeProto.Dimension(dim_value=size) for size in shape)


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with what ONNX infers, sizes that are computed included; unchanged where inference fails.

    Loops get the shapes of their carried values, which inference alone would not trust; a nested one takes a pass
    more.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        for _ in range(NESTED_LOOPS):
            if not _tell_loops(inferred.graph, {}):
                break
            inferred = onnx.shape_inference.infer_shapes(inferred, data_prop=True)
    except Exception:  # InferenceError, or protobuf's own where the model is larger than its 2 GB
        return model
    return inferred


def _tell_loops(graph: onnx.GraphProto, outer: Mapping[str, Shape]) -> bool:
    """Write the shapes of carried values into loop bodies, and into loop outputs where an iteration keeps the shape.

    Returns whether there was any to write.
    """
    shapes = {**outer, **declared_shapes(graph)}
    written = False
    for node in graph.node:
        for body in bodies(node):
            for begins, name in zip(body.input[2:], node.input[2:], strict=False):
                if node.op_type == "Loop" and name in shapes and shape_of(begins) is None:
                    _write(begins, shapes[name])
                    written = True
            written |= _tell_loops(body, shapes)
            if node.op_type == "Loop":
                unchanged = _kept_shapes(node, body, shapes)
                _give_shapes(graph, unchanged)
                written |= bool(unchanged)
    return written


def _kept_shapes(node: onnx.NodeProto, body: onnx.GraphProto, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Unknown shapes of loop outputs whose values keep their shape in every iteration."""
    carried = zip(body.input[2:], body.output[1:], node.output, strict=False)
    return {
        name: shape
        for begins, ends, name in carried
        if name and name not in shapes and (shape := shape_of(begins)) is not None and shape == shape_of(ends)
    }


def _give_lengths(graph: onnx.GraphProto, lengths: Mapping[str, Any]) -> None:
    """Give the experts' token tensors, whose length depends on the image, the lengths recorded in the metadata."""
    info_of = {info.name: info for info in graph.value_info}
    for node in graph.node:
        for name in node.output:
            whole = (
                info_of.get(node.input[0]) if node.op_type == "Split" and isinstance(lengths.get(name), int) else None
            )
            if whole is not None:
                info = info_of.get(name) or graph.value_info.add()
                info.CopyFrom(whole)
                info.name = name
                info.type.tensor_type.shape.dim[0].dim_value = lengths[name]
        for body in bodies(node):
            _give_lengths(body, lengths)


def _missing(graph: onnx.GraphProto, outer: Mapping[str, Shape]) -> set[str]:
    """Tensors without a shape at nodes whose products cannot be counted so, and at nodes that such nodes are in."""
    shapes = {**outer, **declared_shapes(graph)}
    missing: set[str] = set()
    for node in graph.node:
        inner = set().union(*(_missing(body, shapes) for body in bodies(node)))
        lacks = bool(inner) or (node.op_type == "Loop" and any(map(multiplies, bodies(node))))
        try:
            macs_of(node, shapes)
        except UnknownShapeError:
            lacks = True
        except UnknownOperatorError:
            continue
        if lacks:
            missing |= inner.union(name for name in (*read_by(node), *node.output) if name and name not in shapes)
    return missing


def _untold(graph: onnx.GraphProto) -> set[str]:
    """Tensors whose shape or element type is not known, sequences and the like aside."""
    infos = {info.name: info for info in (*graph.value_info, *graph.output)}
    others = {name for name, info in infos.items() if info.type.WhichOneof("value") not in (None, "tensor_type")}
    known = declared_shapes(graph).keys() & declared_kinds(graph).keys()
    return {name for node in graph.node for name in node.output if name} - known - others


def multiplies(graph: onnx.GraphProto) -> bool:
    """Whether an operator of the graph, or inside one of its operators, is counted."""
    return any(has_rule(node) or any(map(multiplies, bodies(node))) for node in graph.node)


def _tell_turns(graph: onnx.GraphProto, prefix: str = "") -> None:
    """Give every loop one more output that collects its iteration numbers: its length is the trip count."""
    for index, node in enumerate(graph.node):
        for body in bodies(node):
            _tell_turns(body, f"{prefix}{index}_")
            if node.op_type == "Loop" and body.input:
                name = f"edgemtl_turn_{prefix}{index}"
                body.node.append(helper.make_node("Identity", [body.input[0].name], [name]))
                body.output.append(helper.make_tensor_value_info(name, TensorProto.INT64, []))
                node.output.append(f"{name}s")


def _give_shapes(graph: onnx.GraphProto, shapes: Mapping[str, Shape], kinds: Mapping[str, int] | None = None) -> None:
    info_of = {info.name: info for info in (*graph.value_info, *graph.output)}
    for name, shape in shapes.items():
        info = info_of.get(name) or graph.value_info.add(name=name)
        _write(info, shape)
        if kinds and name in kinds:
            info.type.tensor_type.elem_type = kinds[name]


def _shapes_by_running(
    model: onnx.ModelProto, names: Iterable[str], feeds: Mapping[str, Any], folder: Path | None
) -> tuple[dict[str, Shape], dict[str, int]]:
    """Shapes and element types of tensors in one unoptimised run; a `Shape` node reports each, so none is kept."""
    import onnxruntime as ort

    own = {name for node in model.graph.node for name in node.output}
    wanted = sorted(own.intersection(names))
    if not wanted:
        return {}, {}
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    if all(opset.domain not in ("", "ai.onnx") for opset in probed.opset_import):
        probed.opset_import.append(helper.make_opsetid("", FIRST_OPSET))
    del probed.graph.output[:]
    for index, name in enumerate(wanted):
        probed.graph.node.append(helper.make_node("Shape", [name], [f"edgemtl_shape_{index}"]))
        probed.graph.output.append(helper.make_tensor_value_info(f"edgemtl_shape_{index}", TensorProto.INT64, None))
    probed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in wanted)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = FATAL
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    content = probed.SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    read = {each.name for each in session.get_inputs()}
    shapes = [f"edgemtl_shape_{index}" for index in range(len(wanted))]
    sizes = run_once(session, shapes, {name: value for name, value in feeds.items() if name in read})
    kinds = {each.name: _KINDS[each.type] for each in session.get_outputs() if each.type in _KINDS}
    return {name: tuple(int(size) for size in shape) for name, shape in zip(wanted, sizes, strict=True)}, kinds
