"""Multiply-accumulates (MACs) of ONNX operators, from the shapes of their inputs and outputs.

Counted are products: convolutions, matrix products, recurrent layers, attention. Everything else (sums, activations,
normalisation, interpolation, moving data) counts for nothing, by the convention of the field. The table `_RULES` says
how each operator is counted; an operator that it lacks is never counted as zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import onnx
from onnx import helper

__all__ = ["Operation", "Shape", "UnknownOperatorError", "UnknownShapeError", "has_rule", "macs_of"]

Shape = tuple[int, ...]


class UnknownOperatorError(Exception):
    """No rule says what the operator multiplies."""


class UnknownShapeError(Exception):
    """A shape that the rule needs is not known; the text is the tensor's name."""


class Operation:
    """A node with the shapes of its tensors; a missing optional input has no shape."""

    def __init__(self, node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> None:
        self.node, self._shapes = node, shapes

    def has(self, index: int) -> bool:
        """Whether the optional input is given."""
        return index < len(self.node.input) and bool(self.node.input[index])

    def input(self, index: int) -> Shape:
        """Shape of an input; raises `UnknownShapeError`."""
        return self._shape(self.node.input, index)

    def output(self, index: int = 0) -> Shape:
        """Shape of an output; raises `UnknownShapeError`."""
        return self._shape(self.node.output, index)

    def attribute(self, name: str, default: Any) -> Any:
        """Value of an attribute, `default` where it is not set."""
        proto = next((each for each in self.node.attribute if each.name == name), None)
        return default if proto is None else helper.get_attribute_value(proto)

    def _shape(self, names: Iterable[str], index: int) -> Shape:
        name = dict(enumerate(names)).get(index, "")
        if name not in self._shapes:
            raise UnknownShapeError(name)
        return self._shapes[name]


Rule = Callable[[Operation], int]


def macs_of(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    """MACs of a node. Raises `UnknownShapeError` or `UnknownOperatorError` where they cannot be counted."""
    rule = _rule(node)
    if rule is not None:
        try:
            return rule(Operation(node, shapes))
        except (IndexError, TypeError, ValueError, ZeroDivisionError) as error:  # what the operator does not allow
            raise UnknownShapeError(node.output[0]) from error
    if not _multiplies_nothing(node):
        raise UnknownOperatorError
    return 0


def has_rule(node: onnx.NodeProto) -> bool:
    """Whether the operator multiplies and is counted."""
    return _rule(node) is not None


def _rule(node: onnx.NodeProto) -> Rule | None:
    return _RULES.get(_domain(node), {}).get(node.op_type)


def _domain(node: onnx.NodeProto) -> str:
    return "" if node.domain == "ai.onnx" else str(node.domain)


def _multiplies_nothing(node: onnx.NodeProto) -> bool:
    """Whether an operator without a rule is known, and known not to multiply matrices."""
    domain = _domain(node)
    if domain == "":
        return node.op_type in _standard_operators() and node.op_type not in _WITHOUT_RULE
    if domain == "com.microsoft":
        return node.op_type in _PLAIN_MICROSOFT.split()
    return domain in _RULES and node.op_type not in _WITHOUT_RULE


@cache
def _standard_operators() -> frozenset[str]:
    return frozenset(schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == "")


def _convolution(weight: int) -> Rule:
    """Every output value sums over a filter; groups are in the filter's shape, (out, in / groups, height, width)."""
    return lambda op: math.prod(op.output()) * math.prod(op.input(weight)[1:])


def _transposed_convolution(weight: int) -> Rule:
    """Every input value is spread by a filter, (in, out / groups, height, width)."""
    return lambda op: math.prod(op.input(0)) * math.prod(op.input(weight)[1:])


def _matrix_product(op: Operation) -> int:
    """Every output value sums over the first factor's reduced axis, which `transA` and `transBatchA` move."""
    first = op.input(0)
    if op.attribute("transA", 0) and len(first) > 1:
        return math.prod(op.output()) * first[0 if op.attribute("transBatchA", 0) else -2]
    return math.prod(op.output()) * first[-1]


def _einsum(op: Operation) -> int:
    """Factors are multiplied from the left, two at a time; an index is summed over with the last factor that has it.

    One factor alone is moved or summed, not multiplied.
    """
    left, arrow, right = op.attribute("equation", b"").decode().replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    terms = []
    for index, term in enumerate(left.split(",")):
        shape = op.input(index)
        labels = _labels(term, len(shape))
        for label, size in zip(labels, shape, strict=True):
            sizes[label] = size if sizes.get(label, 1) == 1 else sizes[label]
        terms.append(labels)
    every = [label for labels in terms for label in labels]
    once = {label for label in every if every.count(label) == 1 or label.startswith(".")}
    result = set(_labels(right, len(op.output()))) if arrow else once
    macs, held = 0, set(terms[0])
    for index, labels in enumerate(terms[1:], 2):
        held.update(labels)
        macs += math.prod(sizes[label] for label in held)
        held &= result.union(*terms[index:])
    return macs


def _labels(term: str, rank: int) -> list[str]:
    """Index names of a term of an equation; an ellipsis stands for as many axes as are left, counted from its end."""
    before, dots, after = term.partition("...")
    rest = rank - len(before) - len(after) if dots else 0
    return [*before, *(f".{index}" for index in range(rest, 0, -1)), *after]


def _recurrent(op: Operation) -> int:
    """Every step of every sequence meets the weights of the input and of the state, of all gates and directions."""
    return math.prod(op.input(0)[:2]) * (math.prod(op.input(1)) + math.prod(op.input(2)))


def _attention(op: Operation) -> int:
    """ai.onnx: queries by keys and scores by values; 4-D (batch, heads, length, width) or 3-D with heads joined.

    The whole square of scores counts, masked or not: runtimes compute it.
    """
    query, value = op.input(0), op.input(2)
    keys = value[-2] + (op.input(4)[-2] if op.has(4) else 0)
    if len(query) == 4:
        batch, heads, queries, width = query
        return batch * heads * queries * keys * (width + value[-1])
    heads, value_heads = (int(op.attribute(name, 0)) for name in ("q_num_heads", "kv_num_heads"))
    return math.prod(query[:2]) * keys * (query[2] + heads * value[2] // value_heads)


def _fused_attention(past: int) -> Rule:
    """com.microsoft Attention and QAttention: the projections of query, key and value are inside."""

    def rule(op: Operation) -> int:
        (batch, queries, _), weights = op.input(0), op.input(1)
        widths: Sequence[int] = op.attribute("qkv_hidden_sizes", None) or [weights[1] // 3] * 3
        keys = queries + (op.input(past)[3] if op.has(past) else 0)
        return batch * queries * (math.prod(weights) + keys * (widths[0] + widths[2]))

    return rule


def _multi_head_attention(op: Operation) -> int:
    """com.microsoft MultiHeadAttention: keys and values each (batch, length, width) or (batch, heads, length, width).

    They may be packed: keys with values (batch, length, heads, 2, width), all three in the first input likewise.
    """
    query = op.input(0)
    width = math.prod(query[2:]) // (3 if len(query) == 5 else 1)
    key = op.input(1) if len(query) == 3 else query
    value_width = width
    if len(key) < 5:
        value = op.input(2)
        value_width = value[1] * value[3] if len(value) == 4 else value[2]
    keys = (key[2] if len(key) == 4 else key[1]) + (op.input(6)[2] if op.has(6) else 0)
    return math.prod(query[:2]) * keys * (width + value_width)


def _grouped_query_attention(op: Operation) -> int:
    """com.microsoft GroupQueryAttention: several heads of queries to one of keys; the cache holds all keys."""
    batch, queries, width = op.input(0)
    heads, key_heads = (int(op.attribute(name, 0)) for name in ("num_heads", "kv_num_heads"))
    if not op.has(1):
        width = width * heads // (heads + 2 * key_heads)
    return 2 * batch * queries * op.output(1)[2] * width


def _linear_attention(op: Operation) -> int:
    """ai.onnx: every step adds key by value to a head's state and multiplies the query with it.

    A rule that corrects (`delta`) multiplies the key with the state before.
    """
    query, value = op.input(0), op.input(2)
    heads, key_heads = (int(op.attribute(name, 0)) for name in ("q_num_heads", "kv_num_heads"))
    corrects = b"delta" in op.attribute("update_rule", b"gated_delta")
    state = query[2] // heads * (value[2] // key_heads)
    return math.prod(query[:2]) * state * (heads + key_heads * (2 if corrects else 1))


def _flex_attention(op: Operation) -> int:
    """ai.onnx.preview: queries by keys and scores by values, (batch, heads, length, width) each.

    The graphs that change the scores and the probabilities between them must not multiply matrices themselves.
    """
    if any(has_rule(inner) for attribute in op.node.attribute for inner in attribute.g.node):
        raise UnknownOperatorError
    query, value = op.input(0), op.input(2)
    return math.prod(query[:3]) * value[2] * (query[3] + value[3])


def _mixture_of_experts(op: Operation) -> int:
    """com.microsoft MoE: every token meets the weights of `k` of the experts, which are the weights' first axis."""
    weights = [op.input(position) for position in (2, 4, 6) if op.has(position)]
    tokens = math.prod(op.input(0)[:-1])
    return tokens * int(op.attribute("k", 1)) * sum(math.prod(shape[1:]) for shape in weights)


def _rows_by(*widths: tuple[str, int]) -> Rule:
    """Rows of the first input by `K` and by the sum of attributes, each as often as it is given."""
    return lambda op: (
        math.prod(op.input(0)[:-1]) * op.attribute("K", 0) * sum(n * op.attribute(name, 0) for name, n in widths)
    )


def _linear_model(op: Operation) -> int:
    """ai.onnx.ml: every row meets every coefficient; a row has one coefficient a feature and class."""
    shape = op.input(0)
    return (shape[0] if len(shape) > 1 else 1) * len(op.attribute("coefficients", ()))


def _support_vectors(op: Operation) -> int:
    """ai.onnx.ml: every row meets every support vector, and what their kernels give every coefficient."""
    rows = op.input(0)[0] if len(op.input(0)) > 1 else 1
    return rows * sum(len(op.attribute(name, ())) for name in ("support_vectors", "coefficients"))


_STANDARD: Mapping[str, Rule] = {
    "AffineGrid": lambda op: math.prod(op.output()) * op.input(0)[-1],
    "Attention": _attention,
    "CausalConvWithState": _convolution(1),
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "ConvTranspose": _transposed_convolution(1),
    "DeformConv": _convolution(1),
    "Einsum": _einsum,
    "GRU": _recurrent,
    "Gemm": _matrix_product,
    "LSTM": _recurrent,
    "LinearAttention": _linear_attention,
    "MatMul": _matrix_product,
    "MatMulInteger": _matrix_product,
    "QLinearConv": _convolution(3),
    "QLinearMatMul": _matrix_product,
    "RNN": _recurrent,
}
_MICROSOFT: Mapping[str, Rule] = {
    "Attention": _fused_attention(4),
    "CausalConvWithState": _convolution(1),
    "ConvTransposeWithDynamicPads": _transposed_convolution(1),
    "DynamicQuantizeLSTM": _recurrent,
    "DynamicQuantizeMatMul": _matrix_product,
    "FusedConv": _convolution(1),
    "FusedGemm": _matrix_product,
    "FusedMatMul": _matrix_product,
    "FusedMatMulActivation": _matrix_product,
    "GemmFastGelu": _matrix_product,
    "GemmFloat8": _matrix_product,
    "GroupQueryAttention": _grouped_query_attention,
    "MatMulBnb4": _matrix_product,
    "MatMulBlockQuantizedFp4Weight": _matrix_product,
    "MatMulBlockQuantizedFp8Weight": _matrix_product,
    "MatMulFpQ4": _matrix_product,
    "MatMulInteger16": _matrix_product,
    "MatMulIntegerToFloat": _matrix_product,
    "MatMulNBits": _matrix_product,
    "MatMulNBitsMlp": _rows_by(("N", 2)),
    "MatMulNBitsQkv": _rows_by(("Nq", 1), ("Nkv", 2)),
    "MoE": _mixture_of_experts,
    "MultiHeadAttention": _multi_head_attention,
    "NhwcConv": _convolution(1),
    "NhwcFusedConv": _convolution(1),
    "QAttention": _fused_attention(8),
    "QGemm": _matrix_product,
    "QLinearConv": _convolution(3),
    "QOrderedMatMul": _matrix_product,
    "TransposeMatMul": _matrix_product,
}
_LAYOUTS: Mapping[str, Rule] = {
    **{name: _STANDARD[name] for name in ("Conv", "ConvTranspose", "QLinearConv")},
    "QLinearConvTranspose": _transposed_convolution(3),
}
_RULES: Mapping[str, Mapping[str, Rule]] = {
    "": _STANDARD,
    "com.microsoft": _MICROSOFT,
    "com.microsoft.nchwc": _LAYOUTS,
    "com.ms.internal.nhwc": _LAYOUTS,
    "ai.onnx.ml": {
        "LinearClassifier": _linear_model,
        "LinearRegressor": _linear_model,
        "SVMClassifier": _support_vectors,
        "SVMRegressor": _support_vectors,
    },
    "ai.onnx.preview": {"FlexAttention": _flex_attention},
    "ai.onnx.preview.training": {},
}
"""Domain, operator, and how its MACs follow. ONNX Runtime writes the operators that are not of ONNX's own domain."""

_WITHOUT_RULE = frozenset({"DFT", "Gradient", "STFT", "SequenceMap"})
"""Operators of known domains that multiply and have no rule."""

_PLAIN_MICROSOFT = """
BiasAdd BiasDropout BiasGelu BiasSoftmax BiasSplitGelu BifurcationDetector BitmaskBiasDropout BitmaskDropout
BranchwiseRMSNorm ComplexMul ComplexMulConj CropAndResize DequantizeBFP DequantizeLinear DequantizeWithOrder
EmbedLayerNormalization ExpandDims FastGelu GatedAdd GatedRMSNorm GatherBlockQuantized GatherND Gelu
GemmaRotaryEmbedding GridSample GroupNorm IsAllFinite MRotaryEmbedding MaxpoolWithMask MulInteger MurmurHash3
NGramRepeatBlock NhwcMaxPool Pad QEmbedLayerNormalization QLinearAdd QLinearAveragePool QLinearConcat
QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid QLinearSoftmax QLinearWhere
QOrderedGelu QOrderedLayerNormalization QuantizeBFP QuantizeLinear QuantizeWithOrder QuickGelu Range
ReduceSumInteger RelativePositionBias RemovePadding RestorePadding RotaryEmbedding SampleOp ScaledSiLU
SkipGroupNorm SkipLayerNormalization SkipSimplifiedLayerNormalization Tokenizer Trilu UnfoldTensor Unique
"""
"""Operators of com.microsoft that multiply no matrices."""
