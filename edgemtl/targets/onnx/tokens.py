"""How tokens, attention and experts are written to ONNX, where batch 1 leaves tokens two dimensions: (tokens, C)."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from edgemtl.models.graph import Node
from edgemtl.targets.onnx.dispatch import Routed
from edgemtl.targets.onnx.writer import Writer

__all__ = ["attention", "combine", "dispatch", "gelu", "router", "to_map", "to_tokens"]


def to_tokens(writer: Writer, node: Node) -> None:
    """(1, C, H, W) to (H W, C); every tensor of tokens after it has as many."""
    writer.tokens = int(node.attributes["tokens"])
    flat = writer.step(node, "Flatten", [node.inputs[0]], "flat", axis=2)
    writer.step(node, "Transpose", [flat], node.output, perm=[1, 0])


def to_map(writer: Writer, node: Node) -> None:
    """(H W, C) to (1, C, H, W)."""
    turned = writer.step(node, "Transpose", [node.inputs[0]], "turned", perm=[1, 0])
    shape = [1, -1, node.attributes["height"], node.attributes["width"]]
    writer.step(node, "Reshape", [turned, writer.integers(node, "shape", shape)], node.output)


def gelu(writer: Writer, node: Node) -> None:
    """The exact form, as the pattern that runtimes know."""
    x = node.inputs[0]
    scaled = writer.step(node, "Div", [x, writer.number("const.sqrt2", math.sqrt(2))], "scaled")
    above = writer.step(
        node, "Add", [writer.step(node, "Erf", [scaled], "erf"), writer.number("const.one", 1.0)], "above"
    )
    twice = writer.step(node, "Mul", [x, above], "twice")
    writer.step(node, "Mul", [twice, writer.number("const.half", 0.5)], node.output)


def attention(writer: Writer, node: Node) -> None:
    """Heads first, so that both products are batches of matrices."""
    heads, width = int(node.attributes["heads"]), int(node.attributes["head_width"])
    shape = writer.integers(node, "split", [-1, heads, width])
    turned = []
    for name, source, order in zip("qkv", node.inputs, ([1, 0, 2], [1, 2, 0], [1, 0, 2]), strict=True):
        split = writer.step(node, "Reshape", [source, shape], f"{name}.split")
        turned.append(writer.step(node, "Transpose", [split], f"{name}.heads", perm=order))
    queries, keys, values = turned
    scale = writer.number(f"const.scale{width}", width**-0.5)
    queries = writer.step(node, "Mul", [queries, scale], "q.scaled")
    weights = writer.step(node, "Softmax", [writer.step(node, "MatMul", [queries, keys], "scores")], "weights", axis=-1)
    mixed = writer.step(node, "MatMul", [weights, values], "mixed")
    merged = writer.step(node, "Transpose", [mixed], "merged", perm=[1, 0, 2])
    flat = writer.integers(node, "flat", [-1, heads * width])
    writer.step(node, "Reshape", [merged, flat], node.output)


def router(writer: Writer, node: Node) -> None:
    """Probabilities, the top-k of each token, which experts those are, and which of them fit the capacity."""
    experts, top_k = len(node.constants["weight"]), int(node.attributes["top_k"])
    tokens, limit = writer.tokens, int(node.attributes["expert_capacity"])
    form = writer.dispatch.form_within(limit, tokens)
    logits = writer.step(node, "Gemm", [node.inputs[0], *writer.weights(node)], "logits", transB=1)
    probabilities = writer.step(node, "Softmax", [logits], "probabilities", axis=-1)
    if top_k == experts:
        values = _shares(writer, node, probabilities, probabilities)
        writer.routed[node.output] = Routed(experts, top_k, tokens, form, tokens, values)
        return
    count = writer.integers(node, "top_k", [top_k])
    largest, chosen = writer.steps(node, "TopK", [probabilities, count], ["values", "chosen"], axis=-1)
    values, mask = _shares(writer, node, largest, largest), _mask(writer, node, chosen, experts)
    if form == "segments" and limit == tokens:
        writer.routed[node.output] = Routed(experts, top_k, tokens, form, limit, values, chosen, mask)
        return
    are_equal = top_k == 1 and bool(node.attributes["renormalise"])
    gates = mask  # a gate that is divided by itself is 1
    if not are_equal:
        gates = _shares(writer, node, writer.step(node, "Mul", [mask, probabilities], "sparse"), largest)
    order = ranks = ""
    if form == "buckets":
        limit = min(limit, writer.dispatch.expert_capacity(tokens, experts, top_k))
    if form == "buckets" or limit < tokens:
        ranking = _scattered if writer.dispatch.scatters else _sorted
        order, ranks = ranking(writer, node, _by_place(writer, node, mask) if are_equal else gates, limit)
    if form != "buckets" and limit < tokens:
        fits = writer.step(node, "Less", [ranks, writer.integers(node, "capacity", limit)], "fits")
        mask = writer.step(node, "Mul", [mask, writer.step(node, "Cast", [fits], "within", to=_FLOAT)], "fitting")
        gates = writer.step(node, "Mul", [gates, mask], "fitting_gates")
        values = writer.step(node, "GatherElements", [gates, chosen], "fitting_values", axis=1)
    if form == "masked":
        writer.routed[node.output] = Routed(experts, experts, tokens, form, tokens, gates)
        return
    writer.routed[node.output] = Routed(experts, top_k, tokens, form, limit, values, chosen, mask, order, ranks)


_FLOAT = TensorProto.FLOAT


def _mask(writer: Writer, node: Node, chosen: str, experts: int) -> str:
    """(tokens, experts): 1 where a token chose the expert."""
    column = writer.step(node, "Unsqueeze", [chosen, writer.integers(node, "last", [2])], "column")
    equal = writer.step(node, "Equal", [column, writer.integers(node, "experts", range(experts))], "equal")
    hits = writer.step(node, "Cast", [equal], "hits", to=_FLOAT)
    return writer.step(node, "ReduceMax", [hits], "mask", axes=[1], keepdims=0)


def _scattered(writer: Writer, node: Node, gates: str, limit: int) -> tuple[str, str]:
    """Like `_sorted`, of the first `limit` tokens of an expert alone; the rank of the others is `limit`."""
    experts = len(node.constants["weight"])
    _, order = writer.steps(
        node, "TopK", [gates, writer.integers(node, "limit", [limit])], ["by_gate", "order"], axis=0
    )
    name = f"{writer.tokens}x{experts}"
    beyond = writer.constant(f"const.beyond{limit}of{name}", np.full((writer.tokens, experts), limit))
    numbers = writer.constant(f"const.places{limit}of{name}", np.arange(limit)[:, None].repeat(experts, 1))
    return order, writer.step(node, "ScatterElements", [beyond, order, numbers], "ranks", axis=0)


def _sorted(writer: Writer, node: Node, gates: str, limit: int) -> tuple[str, str]:
    """Every expert's tokens by falling gate, one column each, and each token's rank in that order: its inverse."""
    count = writer.integers(node, "tokens", [writer.tokens])
    _, order = writer.steps(node, "TopK", [gates, count], ["by_gate", "order"], axis=0)
    numbers = writer.step(node, "Cast", [order], "numbers", to=_FLOAT)
    _, ranks = writer.steps(node, "TopK", [numbers, count], ["by_number", "ranks"], axis=0, largest=0)
    return order, ranks


def _by_place(writer: Writer, node: Node, mask: str) -> str:
    """Where all gates are equal: numbers that rank an expert's tokens as they stand, the earlier ones first.

    A runtime may compute p / p as a little more or less than 1, or take equal values in any order (OpenVINO does both),
    and would then leave out other tokens than the net does.
    """
    falling = np.arange(writer.tokens, 0, -1, dtype=np.float32)[:, None]
    return writer.step(node, "Mul", [mask, writer.constant(f"const.places{writer.tokens}", falling)], "by_place")


def _shares(writer: Writer, node: Node, values: str, masked: str) -> str:
    """`values` as shares of what a token's `masked` gates sum to, where the router renormalises; else as they are."""
    if not node.attributes["renormalise"]:
        return values
    total = f"{node.name}.total"
    if total not in writer.totals:
        axis = writer.integers(node, "axis", [1])
        writer.totals.add(writer.step(node, "ReduceSum", [masked, axis], "total", keepdims=1))
    return writer.step(node, "Div", [values, total], f"{values.removeprefix(f'{node.name}.')}.shares")


def dispatch(writer: Writer, node: Node) -> None:
    """One expert's tokens; the first expert's node also sorts the tokens for all."""
    x, gates = node.inputs
    routed = writer.routed[gates]
    if routed.top_k == routed.experts:
        writer.alias(node.output, x)
        return
    if gates not in writer.sorted:
        writer.sorted.add(gates)
        (_segments if routed.form == "segments" else _buckets)(writer, node, x, gates, routed)


def _segments(writer: Writer, node: Node, x: str, gates: str, routed: Routed) -> None:
    by_expert = writer.step(node, "Transpose", [routed.mask], f"{gates}.by_expert", perm=[1, 0])
    indices = writer.step(node, "NonZero", [by_expert], f"{gates}.found")
    order = writer.step(node, "Gather", [indices, writer.integers(node, "row", 1)], f"{gates}.row", axis=0)
    if routed.expert_capacity == routed.tokens:
        length = writer.integers(node, "length", [routed.top_k * routed.tokens])
        order = writer.step(node, "Reshape", [order, length], f"{gates}.order")
    counted = writer.step(
        node, "ReduceSum", [routed.mask, writer.integers(node, "axis", [0])], f"{gates}.sum", keepdims=0
    )
    counts = writer.step(node, "Cast", [counted], f"{gates}.counts", to=TensorProto.INT64)
    ends = writer.step(node, "CumSum", [counts, writer.integers(node, "from_first", 0)], f"{gates}.ends")
    starts = writer.step(node, "Sub", [ends, counts], f"{gates}.starts")
    sorted_tokens = writer.step(node, "Gather", [x, order], f"{gates}.sorted", axis=0)
    writer.steps(node, "Split", [sorted_tokens, counts], writer.takers[gates], axis=0)
    total = routed.top_k * routed.tokens
    for index, name in enumerate(writer.takers[gates]):
        writer.even_tokens[name] = (total + index) // routed.experts  # these add up to the total
    first = writer.step(node, "Gather", [starts, routed.chosen], f"{gates}.first", axis=0)
    slot = writer.step(node, "Add", [first, _rank(writer, node, gates, routed)], f"{gates}.slot")
    if routed.expert_capacity < routed.tokens:  # tokens beyond the capacity have gate 0 and read an arbitrary result
        last = writer.step(node, "Sub", [ends, writer.integers(node, "one", 1)], f"{gates}.behind")
        last = writer.step(node, "ReduceMax", [last], f"{gates}.final", keepdims=0)
        writer.step(node, "Min", [slot, last], f"{gates}.inside")


def _rank(writer: Writer, node: Node, gates: str, routed: Routed) -> str:
    """For each token and each of its experts: how many tokens before it go to that expert."""
    until = writer.step(
        node, "CumSum", [routed.mask, writer.integers(node, "from_first", 0)], f"{gates}.until", exclusive=1
    )
    rank = writer.step(node, "GatherElements", [until, routed.chosen], f"{gates}.before", axis=1)
    return writer.step(node, "Cast", [rank], f"{gates}.rank", to=TensorProto.INT64)


def _buckets(writer: Writer, node: Node, x: str, gates: str, routed: Routed) -> None:
    bounds = [
        writer.integers(node, name, [value]) for name, value in (("from", 0), ("capacity", routed.expert_capacity))
    ]
    first = routed.order
    if not writer.dispatch.scatters:
        first = writer.step(node, "Slice", [first, *bounds, writer.integers(node, "rows", [0])], f"{gates}.first")
    by_expert = writer.step(node, "Transpose", [first], f"{gates}.by_expert", perm=[1, 0])
    flat = writer.step(node, "Reshape", [by_expert, writer.integers(node, "flat", [-1])], f"{gates}.all")
    bucketed = writer.step(node, "Gather", [x, flat], f"{gates}.bucketed", axis=0)
    sizes = writer.integers(node, "sizes", [routed.expert_capacity] * routed.experts)
    writer.steps(node, "Split", [bucketed, sizes], writer.takers[gates], axis=0)
    rank = writer.step(node, "GatherElements", [routed.ranks, routed.chosen], f"{gates}.rank", axis=1)
    last = writer.integers(node, "last_position", [routed.expert_capacity - 1])
    inside = writer.step(node, "Min", [rank, last], f"{gates}.inside")
    start = writer.step(node, "Mul", [routed.chosen, bounds[1]], f"{gates}.start")
    writer.step(node, "Add", [start, inside], f"{gates}.slot")
    fits = writer.step(node, "Less", [rank, bounds[1]], f"{gates}.fits")
    writer.step(node, "Cast", [fits], f"{gates}.kept", to=_FLOAT)


def combine(writer: Writer, node: Node) -> None:
    """Each token's results, gathered from where its experts put them, weighted and summed."""
    gates, *given = node.inputs
    routed = writer.routed[gates]
    if routed.top_k == routed.experts:
        _weighted_sum(writer, node, routed, given)
        return
    values, slot = routed.values, f"{gates}.slot"
    if routed.form == "buckets":
        values = writer.step(node, "Mul", [values, f"{gates}.kept"], "kept")
    elif routed.expert_capacity < routed.tokens:
        slot = f"{gates}.inside"
    results = writer.step(node, "Concat", given, "results", axis=0)
    own = writer.step(node, "Gather", [results, slot], "own", axis=0)
    row = writer.step(node, "Unsqueeze", [values, writer.integers(node, "middle", [1])], "row")
    mixed = writer.step(node, "MatMul", [row, own], "mixed")
    writer.step(node, "Squeeze", [mixed, writer.integers(node, "middle", [1])], node.output)


def _weighted_sum(writer: Writer, node: Node, routed: Routed, given: list[str]) -> None:
    columns = [f"column{index}" for index in range(routed.experts)]
    names = [routed.values]
    if routed.experts > 1:
        sizes = writer.integers(node, "ones", [1] * routed.experts)
        names = writer.steps(node, "Split", [routed.values, sizes], columns, axis=1)
    products = [
        writer.step(node, "Mul", [result, gate], f"weighted{index}")
        for index, (result, gate) in enumerate(zip(given, names, strict=True))
    ]
    total = products[0]
    for index, product in enumerate(products[1:], 1):
        last = index == len(products) - 1
        total = writer.step(node, "Add", [total, product], node.output if last else f"sum{index}")
    if len(products) == 1:
        writer.step(node, "Identity", [total], node.output)
