"""How tokens, attention and experts are written to ONNX, where batch 1 leaves tokens two dimensions: (tokens, C).

Experts get their tokens in one of three forms, and a target chooses. `segments` sorts the tokens by expert and splits
them where one expert's end and the next one's begin: nothing is dropped and no place is empty, but the pieces' lengths
depend on the image. `buckets` gives every expert `capacity` places: every shape is known ahead, and tokens beyond them
are dropped (none, where there are as many places as tokens). `masked` runs every expert on every token: what the others
are measured against. None scatters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from onnx import TensorProto

from edgemtl.models._graph import Node

if TYPE_CHECKING:
    from edgemtl.export._emit import Writer

__all__ = ["Dispatch", "attention", "combined", "gelu", "router", "taken", "to_map", "to_tokens"]


@dataclass(frozen=True)
class Dispatch:
    """How experts get their tokens; `capacity` is a multiple of an even share, none: every token has its place."""

    form: Literal["segments", "buckets", "masked"] = "segments"
    capacity: float | None = None

    def places(self, tokens: int, experts: int, top_k: int) -> int:
        """Places that each expert has in the form `buckets`."""
        if self.capacity is None:
            return tokens
        return min(tokens, math.ceil(self.capacity * top_k * tokens / experts))

    def limit(self, tokens: int, experts: int, top_k: int) -> int:
        """The most tokens that an expert can take: all of them, but in buckets whose places are fewer."""
        return self.places(tokens, experts, top_k) if self.form == "buckets" and top_k < experts else tokens


@dataclass(frozen=True)
class _Routed:
    """What a router's tensors are called, for the experts after it."""

    experts: int
    top_k: int
    tokens: int
    values: str
    chosen: str
    mask: str


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
    """Probabilities, the top-k of each token, and which experts those are."""
    experts, top_k = len(node.constants["weight"]), int(node.attributes["top_k"])
    logits = writer.step(node, "Gemm", [node.inputs[0], *writer.weights(node)], "logits", transB=1)
    probabilities = writer.step(node, "Softmax", [logits], "probabilities", axis=-1)
    tokens = writer.tokens
    if top_k == experts:
        values = probabilities
        if node.attributes["renormalise"]:
            values = _shares(writer, node, values)
        writer.routed[node.output] = _Routed(experts, top_k, tokens, values, "", "")
        return
    count = writer.integers(node, "top_k", [top_k])
    values, chosen = writer.steps(node, "TopK", [probabilities, count], ["values", "chosen"], axis=-1)
    if node.attributes["renormalise"]:
        values = _shares(writer, node, values)
    numbers = writer.integers(node, "experts", range(experts))
    last = writer.integers(node, "last", [2])
    column = writer.step(node, "Unsqueeze", [chosen, last], "column")
    equal = writer.step(node, "Equal", [column, numbers], "equal")
    hits = writer.step(node, "Cast", [equal], "hits", to=TensorProto.FLOAT)
    if writer.dispatch.form == "masked":
        weighted = writer.step(
            node, "Mul", [hits, writer.step(node, "Unsqueeze", [values, last], "shared")], "weighted"
        )
        gates = writer.step(node, "ReduceSum", [weighted, writer.integers(node, "axis", [1])], "gates", keepdims=0)
        writer.routed[node.output] = _Routed(experts, experts, tokens, gates, "", "")
        return
    mask = writer.step(node, "ReduceMax", [hits], "mask", axes=[1], keepdims=0)
    writer.routed[node.output] = _Routed(experts, top_k, tokens, values, chosen, mask)


def _shares(writer: Writer, node: Node, values: str) -> str:
    total = writer.step(node, "ReduceSum", [values, writer.integers(node, "axis", [1])], "total", keepdims=1)
    return writer.step(node, "Div", [values, total], "shares")


def taken(writer: Writer, node: Node) -> None:
    """One expert's tokens; the first expert's node also sorts the tokens for all."""
    x, gates = node.inputs
    routed = writer.routed[gates]
    if routed.top_k == routed.experts:
        writer.alias(node.output, x)
        return
    if gates not in writer.sorted:
        writer.sorted.add(gates)
        (_segments if writer.dispatch.form == "segments" else _buckets)(writer, node, x, gates, routed)


def _segments(writer: Writer, node: Node, x: str, gates: str, routed: _Routed) -> None:
    by_expert = writer.step(node, "Transpose", [routed.mask], f"{gates}.by_expert", perm=[1, 0])
    found = writer.step(node, "NonZero", [by_expert], f"{gates}.found")
    row = writer.step(node, "Gather", [found, writer.integers(node, "row", 1)], f"{gates}.row", axis=0)
    length = writer.integers(node, "length", [routed.top_k * routed.tokens])
    order = writer.step(node, "Reshape", [row, length], f"{gates}.order")
    counted = writer.step(
        node, "ReduceSum", [routed.mask, writer.integers(node, "axis", [0])], f"{gates}.sum", keepdims=0
    )
    counts = writer.step(node, "Cast", [counted], f"{gates}.counts", to=TensorProto.INT64)
    ends = writer.step(node, "CumSum", [counts, writer.integers(node, "from_first", 0)], f"{gates}.ends")
    starts = writer.step(node, "Sub", [ends, counts], f"{gates}.starts")
    sorted_tokens = writer.step(node, "Gather", [x, order], f"{gates}.sorted", axis=0)
    writer.steps(node, "Split", [sorted_tokens, counts], writer.takers[gates], axis=0)
    total = routed.top_k * routed.tokens
    for place, name in enumerate(writer.takers[gates]):
        writer.even_tokens[name] = (total + place) // routed.experts  # these add up to the total
    first = writer.step(node, "Gather", [starts, routed.chosen], f"{gates}.first", axis=0)
    writer.step(node, "Add", [first, _rank(writer, node, gates, routed)], f"{gates}.slot")


def _rank(writer: Writer, node: Node, gates: str, routed: _Routed) -> str:
    """For each token and each of its experts: how many tokens before it chose that expert."""
    until = writer.step(
        node, "CumSum", [routed.mask, writer.integers(node, "from_first", 0)], f"{gates}.until", exclusive=1
    )
    rank = writer.step(node, "GatherElements", [until, routed.chosen], f"{gates}.before", axis=1)
    return writer.step(node, "Cast", [rank], f"{gates}.rank", to=TensorProto.INT64)


def _buckets(writer: Writer, node: Node, x: str, gates: str, routed: _Routed) -> None:
    places = writer.dispatch.places(routed.tokens, routed.experts, routed.top_k)
    early = np.arange(routed.tokens, 0, -1, dtype=np.float32)[:, None]
    keys = writer.step(node, "Mul", [routed.mask, writer.array(node, "early", early)], f"{gates}.keys")
    by_expert = writer.step(node, "Transpose", [keys], f"{gates}.by_expert", perm=[1, 0])
    size = writer.integers(node, "places", [places])
    _, order = writer.steps(node, "TopK", [by_expert, size], [f"{gates}.key", f"{gates}.order"], axis=-1)
    flat = writer.step(node, "Reshape", [order, writer.integers(node, "flat", [-1])], f"{gates}.all")
    bucketed = writer.step(node, "Gather", [x, flat], f"{gates}.bucketed", axis=0)
    sizes = writer.integers(node, "sizes", [places] * routed.experts)
    writer.steps(node, "Split", [bucketed, sizes], writer.takers[gates], axis=0)
    rank = _rank(writer, node, gates, routed)
    last = writer.integers(node, "last_place", [places - 1])
    inside = writer.step(node, "Min", [rank, last], f"{gates}.inside")
    start = writer.step(node, "Mul", [routed.chosen, size], f"{gates}.start")
    writer.step(node, "Add", [start, inside], f"{gates}.slot")
    fits = writer.step(node, "Less", [rank, size], f"{gates}.fits")
    writer.step(node, "Cast", [fits], f"{gates}.kept", to=TensorProto.FLOAT)


def combined(writer: Writer, node: Node) -> None:
    """Each token's results, gathered from where its experts put them, weighted and summed."""
    gates, *given = node.inputs
    routed = writer.routed[gates]
    if routed.top_k == routed.experts:
        _weighted_sum(writer, node, routed, given)
        return
    values = routed.values
    if writer.dispatch.form == "buckets":
        values = writer.step(node, "Mul", [values, f"{gates}.kept"], "kept")
    results = writer.step(node, "Concat", given, "results", axis=0)
    own = writer.step(node, "Gather", [results, f"{gates}.slot"], "own", axis=0)
    row = writer.step(node, "Unsqueeze", [values, writer.integers(node, "middle", [1])], "row")
    mixed = writer.step(node, "MatMul", [row, own], "mixed")
    writer.step(node, "Squeeze", [mixed, writer.integers(node, "middle", [1])], node.output)


def _weighted_sum(writer: Writer, node: Node, routed: _Routed, given: list[str]) -> None:
    columns = [f"column{place}" for place in range(routed.experts)]
    names = [routed.values]
    if routed.experts > 1:
        sizes = writer.integers(node, "ones", [1] * routed.experts)
        names = writer.steps(node, "Split", [routed.values, sizes], columns, axis=1)
    products = [
        writer.step(node, "Mul", [result, gate], f"weighted{place}")
        for place, (result, gate) in enumerate(zip(given, names, strict=True))
    ]
    total = products[0]
    for place, product in enumerate(products[1:], 1):
        last = place == len(products) - 1
        total = writer.step(node, "Add", [total, product], node.output if last else f"sum{place}")
    if len(products) == 1:
        writer.step(node, "Identity", [total], node.output)
