"""Multiply-accumulates of an ONNX graph, counted while it runs: nothing here is shared with the package.

`by_reference` runs the graph in ONNX's own evaluator, node by node, bodies and functions included, and multiplies out
the shapes of the arrays that really met. What ONNX defines by other operators (`Attention`, `AffineGrid`) is counted as
its definition runs. `by_onnxruntime` reads the shapes of every tensor of a flat graph from one run of ONNX Runtime,
which is faster and knows its operators.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import FunctionProto, helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpFunction

__all__ = ["by_onnxruntime", "by_reference"]

Shape = tuple[int, ...]
Attributes = Mapping[str, Any]
DEFINED_BY_OTHERS = ("AffineGrid", "Attention", "CausalConvWithState", "FlexAttention", "LinearAttention")
"""Operators whose definition in ONNX is a function that multiplies."""


def by_reference(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> int:
    """MACs of one run by ONNX's reference evaluator; raises whatever it raises on what it cannot run."""
    ran: list[int] = []
    with _counting(ran, {each.domain: each.version for each in model.opset_import}):
        ReferenceEvaluator(model).run(None, dict(feeds))
    return sum(ran)


def by_onnxruntime(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> int:
    """MACs of one run by ONNX Runtime of a graph without bodies, every tensor of which is made an output."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    there = {info.name for info in probed.graph.output}
    made = [name for node in probed.graph.node for name in node.output if name and name not in there]
    probed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in made)
    options = ort.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL, 4
    session = ort.InferenceSession(probed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    values = {**feeds, **dict(zip(names, session.run(names, feeds), strict=True))}
    shapes |= {name: _shape(value) for name, value in values.items()}
    return sum(
        _products(node, [shapes.get(each) for each in node.input], [shapes.get(each) for each in node.output])
        for node in model.graph.node
    )


@contextmanager
def _counting(ran: list[int], opsets: Mapping[str, int]) -> Iterator[None]:
    """Evaluators that are made meanwhile append the products of every node that they run."""
    prepare = ReferenceEvaluator._init

    def prepare_and_wrap(self: ReferenceEvaluator, *arguments: Any, **named: Any) -> None:
        prepare(self, *arguments, **named)
        for operator in self.rt_nodes_:
            operator.run = _counted(operator, operator.run, ran, opsets)

    ReferenceEvaluator._init = prepare_and_wrap
    try:
        yield
    finally:
        ReferenceEvaluator._init = prepare


def _counted(operator: Any, run: Callable[..., Any], ran: list[int], opsets: Mapping[str, int]) -> Callable[..., Any]:
    node = operator.onnx_node

    def counted(*inputs: Any, **named: Any) -> Any:
        before = len(ran)
        outputs = run(*inputs, **named)
        if node.op_type in DEFINED_BY_OTHERS:
            del ran[before:]
            _run_definition(node, inputs, opsets)
        elif not isinstance(operator, OpFunction):  # whose inner nodes were counted as they ran
            ran.append(_products(node, [*map(_shape, inputs)], [*map(_shape, outputs)]))
        return outputs

    return counted


def _run_definition(node: onnx.NodeProto, inputs: Sequence[Any], opsets: Mapping[str, int]) -> None:
    """Run the function by which ONNX defines a node, in an evaluator that counts."""
    schema = onnx.defs.get_schema(node.op_type, opsets[node.domain], node.domain)
    attributes = {name: each.default_value for name, each in schema.attributes.items() if each.default_value.name}
    attributes |= {each.name: each for each in node.attribute}
    whole = helper.make_node(node.op_type, list(node.input), list(node.output), domain=node.domain)
    whole.attribute.extend(attributes.values())
    if schema.has_context_dependent_function:
        types = [_type_of(each).SerializeToString() for each in inputs]
        version = max(v for v in schema.context_dependent_function_opset_versions if v <= opsets[node.domain])
        content = schema.get_context_dependent_function_with_opset_version(version, whole.SerializeToString(), types)
    else:
        content = schema.get_function_with_opset_version(schema.function_opset_versions[-1])
    function = FunctionProto.FromString(content)
    feeds = dict(zip(function.input, [*inputs, *[None] * len(function.input)], strict=False))
    values = {name: helper.get_attribute_value(each) for name, each in attributes.items()}
    ReferenceEvaluator(function).run([], feeds, attributes=values)  # outputs that are left out need no name


def _type_of(value: Any) -> onnx.TypeProto:
    if value is None:
        return onnx.TypeProto()
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def _shape(value: Any) -> Shape:
    """Shape of an array; none of a sequence's."""
    return () if isinstance(value, list) else tuple(np.shape(value))


def _products(node: onnx.NodeProto, inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Products of one node that met arrays of these shapes; operators that are not listed multiply nothing."""
    name, attributes = node.op_type, {each.name: each for each in node.attribute}
    if name in ("Conv", "ConvInteger", "DeformConv", "FusedConv"):
        return math.prod(outputs[0]) * math.prod(inputs[1][1:])
    if name == "QLinearConv":
        return math.prod(outputs[0]) * math.prod(inputs[3][1:])
    if name == "ConvTranspose":
        return math.prod(inputs[0]) * math.prod(inputs[1][1:])
    if name in ("Gemm", "FusedGemm"):
        swapped = "transA" in attributes and attributes["transA"].i
        return math.prod(outputs[0]) * inputs[0][0 if swapped else 1]
    if name in ("MatMul", "MatMulInteger", "QLinearMatMul"):
        return math.prod(outputs[0]) * inputs[0][-1]
    if name in ("GRU", "LSTM", "RNN"):
        return math.prod(inputs[0][:2]) * (math.prod(inputs[1]) + math.prod(inputs[2]))
    if name in DEFINED_BY_OTHERS:
        raise NotImplementedError(name)
    if name == "Einsum":
        return _einsum_products(attributes["equation"].s.decode(), inputs)
    return 0


def _einsum_products(equation: str, shapes: Sequence[Shape]) -> int:
    """Products of an equation of two factors: every index once; one factor alone is moved or summed."""
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    if len(terms) == 1:
        return 0
    if len(terms) > 2:
        raise NotImplementedError(equation)
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        before, dots, after = term.partition("...")
        rest = [f".{index}" for index in range(len(shape) - len(before) - len(after), 0, -1)] if dots else []
        for label, size in zip([*before, *rest, *after], shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    return math.prod(sizes.values())
