"""Walk over the operators and constants of an ONNX graph, each with its inputs, outputs and cost."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgemtl.graphs import Shape, UnknownOperatorError, UnknownShapeError, bodies, has_rule, macs_of
from edgemtl.profiling.names import short_name
from edgemtl.profiling.shapes import declared_kinds, declared_shapes, multiplies, shape_of

__all__ = ["Count", "Item", "Remark", "Walker", "tensor_bytes"]

_NOT_PARAMETERS = (TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING)
_UNARY = ("AveragePool", "GlobalAveragePool", "LeakyRelu", "ReduceMean", "Sigmoid", "Softmax")
_SETTINGS: Mapping[str, Collection[int]] = {
    **{f"QLinear{name}": range(1, 5) for name in _UNARY},
    "Clip": (1, 2),
    "ConvInteger": (2, 3),
    "DequantizeLinear": (1, 2),
    "DynamicQuantizeLSTM": range(8, 12),
    "DynamicQuantizeMatMul": (2, 3),
    "MatMulInteger": (2, 3),
    "MatMulIntegerToFloat": range(2, 6),
    "MatMulNBits": range(2, 5),
    "Pad": (1, 2, 3),
    "QAttention": (3, 4, 6, 7),
    "QGemm": (1, 2, 4, 5, 7, 8),
    "QLinearAdd": (1, 2, 4, 5, 6, 7),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "QLinearMul": (1, 2, 4, 5, 6, 7),
    "QLinearWhere": (2, 3, 5, 6, 7, 8),
    "QuantizeLinear": (1, 2),
    "Resize": (1, 2, 3),
}
"""Inputs that are settings (bounds, scales, zero points), not parameters; `_is_setting` covers variadic inputs."""
_ELEMENT_BITS = {"INT2": 2, "UINT2": 2, "INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "STRING": 0, "UNDEFINED": 0}
"""Element types that NumPy stores differently from ONNX; strings count as zero."""
_VIEWS = frozenset(
    {"Flatten", "Identity", "Optional", "OptionalGetElement", "Reshape", "SplitToSequence", "Squeeze", "Unsqueeze"}
)
_ELEMENTWISE = frozenset(
    [
        "Abs",
        "Add",
        "BatchNormalization",
        "BiasGelu",
        "Celu",
        "Ceil",
        "Clip",
        "Cos",
        "Div",
        "Dropout",
        "Elu",
        "Erf",
        "Exp",
        "FastGelu",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "LeakyRelu",
        "Log",
        "Mish",
        "Mul",
        "Neg",
        "Not",
        "PRelu",
        "Pow",
        "QuickGelu",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Sigmoid",
        "Sign",
        "Sin",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Sub",
        "Sum",
        "Swish",
        "Tanh",
        "ThresholdedRelu",
        "Where",
    ]
)
"""Operators whose output lies in their input's memory, and those that compute element by element."""


@dataclass(frozen=True)
class Count:
    """FLOPs for one image (two a MAC), parameters, and bytes of everything constant as it is stored.

    Where `exact` is false, FLOPs lack an operator that could not be counted.
    """

    flops: int = 0
    params: int = 0
    weight_bytes: int = 0
    exact: bool = True

    def __add__(self, other: Count) -> Count:
        return Count(
            self.flops + other.flops,
            self.params + other.params,
            self.weight_bytes + other.weight_bytes,
            self.exact and other.exact,
        )


@dataclass(frozen=True)
class Remark:
    """A note on the count of an operator; notes that differ in `label` alone are printed once."""

    operator: str
    label: str
    what: str


@dataclass
class Item:
    """An operator or a constant, with its inputs, outputs and cost.

    `sizes` are the bytes of what it writes (None: not known), which has memory of its own, lies in what it reads
    (`views`), or takes the place of an input that nobody reads later.
    """

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    count: Count
    remark: Remark | None = None
    sizes: tuple[int | None, ...] = ()
    holds: Literal["own", "views", "takes over"] = "own"


class Walker:
    """Flattens a graph and its bodies into items in order of execution, constants before their readers.

    Two bodies may use one name for two things, so an item has names of its own: `_names` maps to them.
    """

    def __init__(
        self,
        shapes: Mapping[str, Shape],
        constants: Mapping[str, TensorProto],
        names: Mapping[str, str],
        reason: str,
        kinds: Mapping[str, int] | None = None,
    ) -> None:
        self.shapes, self.constants, self._names, self._reason = dict(shapes), dict(constants), dict(names), reason
        self.kinds = dict(kinds or {})

    def walk(self, graph: onnx.GraphProto, scope: str) -> Iterator[Item]:
        """Items of the graph; `scope` tells its own names from those of other graphs."""
        self.shapes |= declared_shapes(graph)
        self.kinds |= declared_kinds(graph)
        self._settings, self._packing = _only_settings(graph), _packing(graph)
        own = [info.name for info in graph.input] + [tensor.name for tensor in graph.initializer]
        own += [sparse.values.name for sparse in graph.sparse_initializer]
        own += [name for node in graph.node for name in node.output]
        self._names |= {name: f"{scope}{name}" for name in own if name}
        for tensor in graph.initializer:
            self.constants[tensor.name] = tensor
            yield self._constant(tensor.name, tensor.data_type, math.prod(tensor.dims))
        for sparse in graph.sparse_initializer:
            yield self._sparse(sparse.values.name, sparse)
        for index, node in enumerate(graph.node):
            yield from self._node(node, f"{scope}{index}/")

    def _local(self, names: Iterable[str]) -> tuple[str, ...]:
        """An item's names; an optional tensor that is left out has none."""
        return tuple(self._names.get(name, name) for name in names if name)

    def _node(self, node: onnx.NodeProto, scope: str) -> Iterator[Item]:
        if node.op_type == "If":
            yield from self._branches(node, scope)
        elif bodies(node) and not has_rule(node):
            yield from self._repeated(node, scope)
        elif node.op_type == "Constant":
            yield self._constant_node(node)
        elif node.op_type == "ConstantOfShape":
            yield self._filled(node)
        else:
            yield self._operator(node)

    def _operator(self, node: onnx.NodeProto) -> Item:
        item = Item(
            self._local(node.input),
            self._local(node.output),
            _attribute_weights(node),
            sizes=self._sizes(node),
            holds=_holds(node),
        )
        if (node.domain, node.op_type) == ("com.microsoft.nchwc", "Conv"):
            item.remark = _remark(node, "its channels count as ONNX Runtime pads them, to whole blocks")
        try:
            macs = macs_of(node, self.shapes)
            item.count += Count(flops=2 * macs)
            if macs == 0 and self._is_empty(node):
                item.remark = _remark(node, "it multiplies nothing, a tensor of it is empty")
        except UnknownOperatorError:
            item.remark = _remark(node, "its FLOPs are not counted, no rule says what it multiplies")
            item.count += Count(exact=False)
        except UnknownShapeError as error:
            because = f" ({self._reason})" if self._reason else ""
            name = short_name(str(error))
            item.remark = _remark(node, f"its FLOPs are not counted, the shape of {name!r} is not known{because}")
            item.count += Count(exact=False)
        return item

    def _sizes(self, node: onnx.NodeProto) -> tuple[int | None, ...]:
        return tuple(tensor_bytes(self.shapes.get(name), self.kinds.get(name)) for name in node.output if name)

    def _is_empty(self, node: onnx.NodeProto) -> bool:
        return has_rule(node) and any(0 in self.shapes.get(name, ()) for name in (*node.input, *node.output))

    def _inside(self, graph: onnx.GraphProto, scope: str) -> tuple[list[Item], tuple[str, ...], tuple[str, ...]]:
        """Items of a body, and the names of its inputs and outputs."""
        inner = Walker(self.shapes, self.constants, self._names, self._reason, self.kinds)
        items = list(inner.walk(graph, scope))
        return (
            items,
            inner._local(info.name for info in graph.input),
            inner._local(info.name for info in graph.output),
        )

    def _branches(self, node: onnx.NodeProto, scope: str) -> Iterator[Item]:
        branches = [self._inside(graph, f"{scope}{number}/") for number, graph in enumerate(bodies(node))]
        flops = [sum(item.count.flops for item in items) for items, _, _ in branches]
        dearer = flops.index(max(flops))
        reads, writes = self._local(node.input), self._local(node.output)
        for number, (items, _, results) in enumerate(branches):
            for item in items:
                if number != dearer:
                    item.count = replace(item.count, flops=0)
                yield item
            for inner, outer in zip(results, writes, strict=False):
                yield Item((inner, *reads), (outer,), Count(), sizes=(0,), holds="views")
        if min(flops) and min(flops) < max(flops):
            text = "of its two branches the dearer one is counted"
            yield Item(reads, writes, Count(), _remark(node, text), sizes=(0,) * len(writes), holds="views")

    def _repeated(self, node: onnx.NodeProto, scope: str) -> Iterator[Item]:
        """A body that runs many times: its FLOPs count every time, its weights once."""
        reads, writes = self._local(node.input), self._local(node.output)
        for number, body in enumerate(bodies(node)):
            items, begins, results = self._inside(body, f"{scope}{number}/")
            turns = self._turns(node, body)
            yield Item(reads, begins, Count(), sizes=(0,) * len(begins), holds="views")
            for item in items:
                item.count = replace(item.count, flops=item.count.flops * (turns or 0))
                yield item
            sizes = self._sizes(node)
            if node.op_type == "Loop":  # whose last output was added to count its iterations
                sizes = (*sizes[:-1], 0)
            link = Item((*reads, *results), writes, Count(), sizes=sizes)
            why = "how often it runs is not known" if turns is None else _growth(node, body)
            if why and multiplies(body):
                link.count = Count(exact=False)
                link.remark = _remark(node, f"its FLOPs are not counted, {why}")
            elif node.op_type == "Loop" and multiplies(body) and self._fixed_turns(node, body) is None:
                link.remark = _remark(node, f"it is counted as often as it ran on inputs that were made up, {turns}")
            elif turns == 0 and multiplies(body):
                link.remark = _remark(node, "it multiplies nothing, it runs no time")
            yield link

    def _turns(self, node: onnx.NodeProto, body: onnx.GraphProto) -> int | None:
        """Trip count of a body: the length of the output that counts a loop's iterations, or of the scanned axis."""
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Loop" and len(body.input) > 1:
            length = self.shapes.get(node.output[-1])
            return length[0] if length else self._fixed_turns(node, body)
        if node.op_type == "Scan" and len(body.input) == len(node.input) and "num_scan_inputs" in attributes:
            states = len(node.input) - attributes["num_scan_inputs"].i
            axis = next(iter(attributes["scan_input_axes"].ints), 0) if "scan_input_axes" in attributes else 0
            shape = self.shapes.get(node.input[states])
            return shape[axis] if shape else None
        return None

    def _fixed_turns(self, node: onnx.NodeProto, body: onnx.GraphProto) -> int | None:
        """Trip count of a loop with a constant number of iterations and no early exit."""
        limit, start = (self.constants.get(name) for name in (*node.input, "", "")[:2])
        begins = not node.input[1] or bool((values := _values(start)) is not None and values.all())
        makers = {name: each for each in body.node for name in each.output}
        goes_on = body.output[0].name
        while goes_on in makers and makers[goes_on].op_type == "Identity":
            goes_on = makers[goes_on].input[0]
        endless = goes_on == body.input[1].name
        turns = _values(limit)
        return int(turns.item()) if turns is not None and begins and endless else None

    def _constant_node(self, node: onnx.NodeProto) -> Item:
        name, attributes = node.output[0], {attribute.name: attribute for attribute in node.attribute}
        if "value" in attributes:
            tensor = attributes["value"].t
        elif "sparse_value" in attributes:
            return self._sparse(name, attributes["sparse_value"].sparse_tensor)
        else:
            written = [name for name in attributes if name.startswith("value_")]
            tensor = numpy_helper.from_array(_typed(helper.get_attribute_value(attributes[written[0]])))
        self.constants[name], self.shapes[name] = tensor, tuple(tensor.dims)
        return self._constant(name, tensor.data_type, math.prod(tensor.dims))

    def _filled(self, node: onnx.NodeProto) -> Item:
        """A constant given by its shape: once the graph is loaded it takes memory like any other."""
        shape, name = self.constants.get(node.input[0]), node.output[0]
        if shape is None:
            return self._operator(node)
        sides = _values(shape)
        if sides is None and name not in self.shapes:
            item = self._operator(node)
            item.remark = _remark(node, "its parameters and bytes are not counted, its shape stands in another file")
            return item
        size = self.shapes[name] if sides is None else tuple(int(side) for side in sides.ravel())
        self.shapes[name] = size
        kind = next((each.t.data_type for each in node.attribute if each.name == "value"), TensorProto.FLOAT)
        item = self._constant(name, kind, math.prod(size))
        return Item(self._local(node.input), item.writes, item.count, sizes=item.sizes)

    def _constant(self, name: str, kind: int, elements: int) -> Item:
        fits = kind not in _NOT_PARAMETERS and name not in self._settings
        parameters = elements * self._packing.get(name, 1) if fits else 0
        stored = math.ceil(elements * _element_bits(kind) / 8)
        return Item((), self._local([name]), Count(0, parameters, stored), sizes=(stored,))

    def _sparse(self, name: str, sparse: onnx.SparseTensorProto) -> Item:
        """Values that are not zero, and their places at eight bytes an index."""
        self.shapes[name] = tuple(sparse.dims)
        item = self._constant(name, sparse.values.data_type, math.prod(sparse.values.dims))
        count = item.count + Count(weight_bytes=8 * math.prod(sparse.indices.dims))
        return Item((), item.writes, count, sizes=item.sizes)


def _growth(node: onnx.NodeProto, body: onnx.GraphProto) -> str:
    """Why one iteration does not represent all: a carried value changes its size ("" if none does)."""
    if node.op_type == "Loop":
        for begins, ends in zip(body.input[2:], body.output[1:], strict=False):
            if (shape := shape_of(begins)) is not None and shape != shape_of(ends):
                return f"{short_name(begins.name)!r} has another size every time"
    return ""


def _remark(node: onnx.NodeProto, what: str) -> Remark:
    operator = f"{node.op_type} of {short_name(node.domain)}" if node.domain not in ("", "ai.onnx") else node.op_type
    return Remark(short_name(operator), node.name or next(iter(node.output), ""), what)


def _values(tensor: TensorProto | None) -> NDArray[Any] | None:
    """Values of a constant; None without one, or where its values lie in another file."""
    if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
        return None
    return numpy_helper.to_array(tensor)


def _typed(value: Any) -> Any:
    """A Constant's number or list of numbers or texts, as an array of the type that ONNX says it has."""
    whole = np.asarray(value)
    return whole.astype({"f": np.float32, "i": np.int64}.get(whole.dtype.kind, np.object_))


def _attribute_weights(node: onnx.NodeProto) -> Count:
    """Coefficients that classic models (ai.onnx.ml) keep in their attributes, four bytes each."""
    if node.domain != "ai.onnx.ml":
        return Count()
    count = sum(len(attribute.floats) for attribute in node.attribute)
    return Count(params=count, weight_bytes=4 * count)


def tensor_bytes(shape: Shape | None, kind: int | None) -> int | None:
    """Bytes of a tensor of this element type; None where either is unknown."""
    if shape is None or not kind:
        return None
    return math.ceil(math.prod(shape) * _element_bits(kind) / 8)


def _holds(node: onnx.NodeProto) -> Literal["own", "views", "takes over"]:
    if node.op_type in _VIEWS or node.op_type.startswith("Sequence"):
        return "views"
    return "takes over" if node.op_type in _ELEMENTWISE else "own"


def _element_bits(kind: int) -> int:
    bits = _ELEMENT_BITS.get(TensorProto.DataType.Name(kind))
    return helper.tensor_dtype_to_np_dtype(kind).itemsize * 8 if bits is None else bits


def _only_settings(graph: onnx.GraphProto) -> set[str]:
    """Constants that stand only where operators take settings."""
    settings: set[str] = set()
    parameters: set[str] = set()
    for node in graph.node:
        for index, name in enumerate(node.input):
            (settings if _is_setting(node.op_type, index) else parameters).add(name)
    return settings - parameters


def _is_setting(operator: str, position: int) -> bool:
    if operator == "QLinearConcat":  # scale and zero point of the output, then of each tensor, behind it
        return position % 3 != 2
    return position in _SETTINGS.get(operator, ())


def _packing(graph: onnx.GraphProto) -> dict[str, int]:
    """Weights of com.microsoft that hold several parameters a byte, and how many."""
    bits = {"MatMulNBits": 4, "MatMulBnb4": 4}
    return {
        node.input[1]: 8 // next((each.i for each in node.attribute if each.name == "bits"), bits[node.op_type])
        for node in graph.node
        if node.op_type in bits and len(node.input) > 1
    }
