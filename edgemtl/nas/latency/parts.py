"""A design as the parts that a latency table has times of: its convolutions, and what else each of its blocks does.

A convolution is timed by its shape, its precision and the precision of what it reads, wherever it stands: that is how
a few dozen engines tell of every block of a space. What a block runs besides (a sum, a sub-pixel step, attention,
conversions at its ends) is one more part of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgemtl.runtime import OperatorTime
from edgemtl.spaces import BlockPlan, ConvPlan, Design

__all__ = ["OPERATORS", "Part", "attributed", "conversions", "design_parts"]

OPERATORS = ("dense", "pointwise", "depthwise", "products", "elementwise")
"""Classes of operators: convolutions by shape, products of activations (attention, experts), and all else."""

_ELEMENT_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
_PRODUCTS = ("conv", "gemm", "matmul", "fullyconnected")
"""Words in the types of operators that multiply, of whichever runtime."""


@dataclass(frozen=True)
class Part:
    """One part of a design. Parts with one `key` take the same time.

    `kind` are all that a rate is shared by; `macs`, `reads`, `writes` (elements) and `weights` are counted for one
    image. `layer` is the convolution's name in its `block`, empty for what else the block does. An estimate takes its
    class of `operator` (one of `OPERATORS`), the `precision` that it computes in, and the bytes that it moves.
    """

    key: str
    kind: str
    block: str
    layer: str
    macs: int
    reads: int
    writes: int
    weights: int
    operator: str
    precision: str
    moved_bytes: int


def design_parts(design: Design, task: str = "") -> list[Part]:
    """The parts that all tasks run (one `task` alone, where it is named), in order of execution."""
    blocks = design.plan.path([task]) if task else design.plan.blocks
    precision_of = _precisions(design)
    readers = _readers(blocks, precision_of)
    return [part for block in blocks for part in _block_parts(block, precision_of, readers[block.name])]


def conversions(design: Design, task: str = "") -> tuple[int, int]:
    """Elements that are rounded to eight bits between blocks, and those that become floats again, for one image."""
    blocks = design.plan.path([task]) if task else design.plan.blocks
    precision_of = _precisions(design)
    readers = _readers(blocks, precision_of)
    rounded = floating = 0
    for block in blocks:
        others = readers[block.name] - {precision_of[block.name]}
        rounded += _written(block) * ("int8" in others)
        floating += _written(block) * bool(others - {"int8"})
    return rounded, floating


def attributed(times: Sequence[OperatorTime], parts: Sequence[Part]) -> tuple[list[float], float]:
    """Milliseconds of each part by the operators' names, and of the operators that belong to no block."""
    position = {(part.block, part.layer): number for number, part in enumerate(parts)}
    spent, unnamed = [0.0] * len(parts), 0.0
    for operator in times:
        layer = operator.name.split(".")[2] if operator.block else ""
        product = any(word in operator.op.lower() for word in _PRODUCTS)
        number = position.get((operator.block, layer if product else ""), position.get((operator.block, "")))
        if number is None:
            unnamed += operator.mean_ms
        else:
            spent[number] += operator.mean_ms
    return spent, unnamed


def _precisions(design: Design) -> dict[str, str]:
    """The precision that each block computes in: eight bits, or the engine's floats; the image is a float."""
    engine = design.precision["engine"]
    kinds = {block.name: design.precision[block.parameters] for block in design.plan.blocks}
    return {"image": engine, **{name: kind if kind == "int8" else engine for name, kind in kinds.items()}}


def _readers(blocks: Sequence[BlockPlan], precision_of: Mapping[str, str]) -> dict[str, set[str]]:
    """The precisions that read each block; outputs are floats."""
    readers: dict[str, set[str]] = {block.name: {"fp32"} if block.output else set() for block in blocks}
    for block in blocks:
        for source in block.inputs:
            if source in readers:
                readers[source].add(precision_of[block.name])
    return readers


def _block_parts(block: BlockPlan, precision_of: Mapping[str, str], readers: set[str]) -> Iterator[Part]:
    own, sources = precision_of[block.name], [precision_of[source] for source in block.inputs]
    for number, conv in enumerate(block.convs):
        before = sources[number] if block.parallel and number < len(sources) else sources[0] if number == 0 else own
        summed = block.residual and number == len(block.convs) - 1
        yield _conv_part(block.name, conv, own, before, summed)
    ends = f"{'+'.join(sorted({*sources}))} to {'+'.join(sorted(readers))}"
    macs = block.attention_macs + (block.experts.macs if block.experts else 0)
    reads, writes = _read(block.convs[0]), _written(block)
    yield Part(
        key=f"{block.kind}{_inside(block)} {_shape(block)}, {own} from {ends}",
        kind=f"{block.kind} {own} from {ends}",
        block=block.name,
        layer="",
        macs=macs,
        reads=reads,
        writes=writes,
        weights=0,
        operator="products" if macs else "elementwise",
        precision=own,
        moved_bytes=reads * _ELEMENT_BYTES[sources[0]] + writes * _ELEMENT_BYTES[own],
    )


def _inside(block: BlockPlan) -> str:
    """The products of a block beside its convolutions, in words."""
    attention = f" {block.heads} heads of {block.convs[0].outputs}" if block.heads else ""
    if (experts := block.experts) is None:
        return attention
    return f"{attention} {experts.top_k} of {len(experts.numbers)} experts of {experts.first.outputs}"


def _shape(block: BlockPlan) -> str:
    first, last = block.convs[0], block.convs[-1]
    sides = f"{first.height * first.stride}x{first.width * first.stride}"
    return f"{first.inputs}x{sides} > {last.outputs}x{last.height}x{last.width} in {len(block.convs)}"


def _conv_part(block: str, conv: ConvPlan, precision: str, before: str, summed: bool) -> Part:
    shape = "depthwise" if conv.groups > 1 else "dense"
    kind = f"{shape} {conv.kernel}x{conv.kernel} {precision} from {before}{' and a sum' if summed else ''}"
    size = f"{conv.inputs}>{conv.outputs} {conv.height}x{conv.width} stride {conv.stride}"
    reads, writes = _read(conv), conv.outputs * conv.height * conv.width
    moved = reads * _ELEMENT_BYTES[before] + (writes + conv.weights) * _ELEMENT_BYTES[precision]
    return Part(
        key=f"{kind}, {size}",
        kind=kind,
        block=block,
        layer=conv.name,
        macs=conv.macs,
        reads=reads,
        writes=writes,
        weights=conv.weights,
        operator="depthwise" if conv.groups > 1 else "pointwise" if conv.kernel == 1 else "dense",
        precision=precision,
        moved_bytes=moved,
    )


def _read(conv: ConvPlan) -> int:
    return conv.inputs * conv.height * conv.width * conv.stride**2


def _written(block: BlockPlan) -> int:
    last = block.convs[-1]
    return last.outputs * last.height * last.width
