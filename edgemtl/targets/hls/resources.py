"""How much of an FPGA a net takes, estimated: multipliers, memory, logic, and cycles between two images.

A model of hls4ml's streaming layers, not of the vendor's tools: every layer has hardware of its own, and all work at
once on different rows of an image. A layer with reuse R has its products over R multipliers, and takes R cycles a pixel
and some to move data, for which hls4ml itself counts 6. Logic is the least certain: the adders' bits, and what holds
shallow memories.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from edgemtl.devices import Device, Fpga, device_names, load_device
from edgemtl.errors import UserError
from edgemtl.spaces import BlockPlan

__all__ = ["Product", "Resources", "check_fits", "choose_reuse", "products_of", "resources_of", "reuse_factors"]

FIXED_BITS = {"float": 16, "int8": 8}
"""Bits of weights and activations in a block of each precision."""
USABLE = 0.8
"""The part of an FPGA that placing and routing can be expected to fill."""
_MOVING_CYCLES = 6
_BLOCK_SHAPES = ((72, 512), (36, 1024), (18, 2048), (9, 4096), (4, 8192), (2, 16384), (1, 32768))
"""Bits and depths of a block RAM of 36 kbit."""
_TABLE_DEPTH = 64
"""Memories up to this depth are kept in look-up tables, 64 bits each."""
_LAYER_LUTS = 500


@dataclass(frozen=True)
class Product:
    """A convolution or linear layer: its products a pixel are `inputs` (channels x kernel area) x `outputs`."""

    name: str
    inputs: int
    outputs: int
    kernel: int
    height: int
    width: int
    bits: int

    @property
    def pixels(self) -> int:
        """Places at which the products are computed."""
        return self.height * self.width

    def cycles(self, reuse: int) -> int:
        """Cycles for an image."""
        return self.pixels * (reuse + _MOVING_CYCLES)


@dataclass(frozen=True)
class Resources:
    """Resources of a whole net on an FPGA, and the cycles between two images."""

    luts: float = 0
    dsps: float = 0
    brams: float = 0
    cycles: float = 0

    def __add__(self, other: Resources) -> Resources:
        return Resources(
            self.luts + other.luts,
            self.dsps + other.dsps,
            self.brams + other.brams,
            max(self.cycles, other.cycles),
        )

    def lacking(self, fpga: Fpga) -> dict[str, tuple[float, float]]:
        """Amounts that are needed and that can be filled, of each resource that a part has too little of."""
        amounts = {
            "DSP": (self.dsps, fpga.dsps), "BRAM": (self.brams, fpga.bram_36k), "LUT": (self.luts, fpga.luts)
        }  # fmt: skip
        return {name: (need, USABLE * has) for name, (need, has) in amounts.items() if need > USABLE * has}


def reuse_factors(layer: Product) -> list[int]:
    """The reuse factors that hls4ml accepts for a layer and that compile, smallest first.

    With the strategy Resource those that divide the products evenly. A 1x1 convolution reused more often than it has
    inputs does not compile (hls4ml 1.3), so it has none of these.
    """
    within = [each for each in _divisors(layer.inputs * layer.outputs) if each < layer.inputs]
    within = [each for each in within if layer.inputs * layer.outputs // each % layer.outputs == 0]
    beyond = [layer.inputs * each for each in _divisors(layer.outputs)]
    return within + (beyond[:1] if layer.kernel == 1 else beyond)


@cache
def _divisors(number: int) -> tuple[int, ...]:
    small = [each for each in range(1, math.isqrt(number) + 1) if number % each == 0]
    return tuple(sorted({*small, *(number // each for each in small)}))


def resources_of(layer: Product, reuse: int) -> Resources:
    """Estimate for one layer: multipliers, weights, the rows that a kernel looks back on, its FIFO and its adders."""
    multipliers = layer.inputs * layer.outputs / reuse
    luts, brams = multipliers * 2 * layer.bits + _LAYER_LUTS, 0.0
    channels = layer.inputs // layer.kernel**2
    memories = [(multipliers * layer.bits, reuse)]
    memories += [(channels * layer.bits, layer.width)] * (layer.kernel - 1)
    memories += [(layer.outputs * layer.bits, layer.width)]
    for width, depth in memories:
        if depth <= _TABLE_DEPTH:
            luts += width * (depth > 1)
        else:
            brams += min(math.ceil(width / bits) * math.ceil(depth / deep) for bits, deep in _BLOCK_SHAPES)
    return Resources(luts, multipliers, brams, layer.cycles(reuse))


def _total(layers: Sequence[Product], reuse: Iterable[int]) -> Resources:
    return sum((resources_of(layer, each) for layer, each in zip(layers, reuse, strict=True)), Resources())


def _slowest(layer: Product, factors: Sequence[int], cycles: float) -> int:
    """The largest reuse with which a layer keeps up with one image every so many cycles; the smallest where none."""
    return max((each for each in factors if layer.cycles(each) <= cycles), default=factors[0])


def choose_reuse(layers: Sequence[Product], fpga: Fpga) -> tuple[dict[str, int], Resources]:
    """Reuse factors for the most images a second that the part has room for, and what they take.

    Every layer is as slow as the slowest may be, so that nothing is spent on waiting. Where even the smallest form does
    not fit, that one.
    """
    factors = [reuse_factors(layer) for layer in layers]
    paces = sorted({layer.cycles(each) for layer, own in zip(layers, factors, strict=True) for each in own})
    low, high = 0, len(paces) - 1
    while low < high:
        middle = (low + high) // 2
        chosen = [_slowest(layer, own, paces[middle]) for layer, own in zip(layers, factors, strict=True)]
        low, high = (middle + 1, high) if _total(layers, chosen).lacking(fpga) else (low, middle)
    chosen = [_slowest(layer, own, paces[low]) for layer, own in zip(layers, factors, strict=True)]
    return {layer.name: each for layer, each in zip(layers, chosen, strict=True)}, _total(layers, chosen)


def smallest(layers: Sequence[Product]) -> Resources:
    """The least that a net can be built with: every layer reused as often as possible."""
    return _total(layers, [reuse_factors(layer)[-1] for layer in layers])


def check_fits(resources: Resources, device: Device) -> None:
    """Raise `UserError` where a net's smallest form is too large: by how much, and what would fit."""
    assert device.fpga is not None
    lacking = resources.lacking(device.fpga)
    if not lacking:
        return
    amounts = ", ".join(
        f"{need:.0f} {name} ({need / has - 1:.0%} more than the {has:.0f} that can be filled)"
        for name, (need, has) in lacking.items()
    )
    others = [load_device(name) for name in device_names()]
    fitting = [each.name for each in others if each.fpga is not None and not resources.lacking(each.fpga)]
    share = min(has / need for need, has in lacking.values())
    remedy = f"device {' or '.join(fitting)} has room" if fitting else "no device known here has room"
    raise UserError(
        f"device {device.name} is too small: the net needs an estimated {amounts}: {remedy}; one of about {share:.0%} "
        "of its products would fit"
    )


def products_of(blocks: Iterable[BlockPlan], precision: Mapping[str, str]) -> list[Product]:
    """The layers of planned blocks, each in the bits of its block's precision (by its `parameters`)."""
    return [
        Product(
            f"{block.name}.{conv.name}",
            conv.inputs // conv.groups * conv.kernel**2,
            conv.outputs,
            conv.kernel,
            conv.height,
            conv.width,
            FIXED_BITS[precision.get(block.parameters, "float")],
        )
        for block in blocks
        for conv in block.convs
    ]
