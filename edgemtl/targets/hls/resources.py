"""How much of an FPGA a net takes, estimated: multipliers, memory, logic, and cycles between two images.

A model of hls4ml's streaming layers, not of the vendor's tools: every layer has hardware of its own, and all work at
once on different rows of an image. A layer with reuse R has its products over R multipliers; a pixel that it reads
takes 4 cycles, and R + 6 where it gives one. Logic is the least certain: adders, and what brings a kernel's window to
the multipliers. The constants were set by reports of Vitis HLS that others published; `benchmarks/fpga_reports.py`
holds the model against them and prints its errors.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from edgemtl.devices import Device, Fpga, device_names, load_device
from edgemtl.errors import UserError
from edgemtl.spaces import BlockPlan
from edgemtl.traits import INTEGER_BITS
from edgemtl.units import Budget

__all__ = [
    "CHAIN_DEPTH",
    "FIXED_BITS",
    "INPUT",
    "NETLIST_SHARE",
    "Product",
    "Resources",
    "check_fits",
    "choose_reuse",
    "fifo_resources",
    "logic_of",
    "memory_blocks",
    "part_limits",
    "products_of",
    "resources_of",
    "reuse_factors",
    "room_for",
    "smallest",
]

INPUT = "image"
FIXED_BITS = {"float": 16, **INTEGER_BITS}
"""Bits of weights and activations in a block of each precision."""
USABLE = 0.8
"""The part of an FPGA that placing and routing can be expected to fill."""
_RESOURCES = {"luts": ("LUT", "luts"), "dsps": ("DSP", "dsps"), "brams": ("BRAM", "bram_36k")}
"""The unit of each resource that budgets limit, and its field of an `Fpga`."""
_READING_CYCLES, _MOVING_CYCLES = 4, 6
_BLOCK_SHAPES = ((36, 512), (18, 1024), (9, 2048), (4, 4096), (2, 8192), (1, 16384))
"""Bits and depths of half a block RAM, 18 kbit."""
_TABLE_DEPTH = 64
"""Rows up to this length are kept in look-up tables, 32 places each."""
_TABLE_BITS = 1024
"""FIFOs and weights up to this size too; larger FIFOs are of block RAMs of 18 bits."""
NETLIST_SHARE = 0.5
"""The part of the look-up tables that C synthesis reports which is left in the netlist, of hls4ml's own example."""
_LAYER_LUTS, _ADDER_LUTS = 500, 2
"""As C synthesis reports them: of a layer, and for each bit of a product of those at once."""
_WINDOW_LUTS, _WINDOW_BIT_LUTS = 25, 2
"""For each input of a kernel's window and each of its bits, where products take turns."""
_CONSTANT_BITS = 8
"""Products with constants of so few bits take look-up tables in place of DSPs."""
CHAIN_DEPTH = 2
"""Places of a FIFO between layers that do not wait for others."""


@dataclass(frozen=True)
class Product:
    """A convolution or linear layer: its products a pixel are `inputs` (channels x kernel area) x `outputs`.

    `height` and `width` are those of what it gives, `fifo_depth` how many pixels the FIFO after it holds. Weights and
    what it gives have `bits`, what it reads `input_bits` (None: as many).
    """

    name: str
    inputs: int
    outputs: int
    kernel: int
    height: int
    width: int
    bits: int
    stride: int = 1
    fifo_depth: int = CHAIN_DEPTH
    input_bits: int | None = None

    @property
    def entering(self) -> int:
        """Bits of each value that it reads."""
        return self.bits if self.input_bits is None else self.input_bits

    @property
    def pixels(self) -> int:
        """Places at which the products are computed."""
        return self.height * self.width

    def cycles(self, reuse: int) -> int:
        """Cycles for an image: of the pixels that it reads, padding included, not all give one."""
        rows, columns = (side * self.stride + self.kernel // 2 * 2 for side in (self.height, self.width))
        return self.pixels * (reuse + _MOVING_CYCLES) + (rows * columns - self.pixels) * _READING_CYCLES


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


def part_limits(device: Device) -> tuple[Budget, ...]:
    """Budgets that every search for a device keeps: the part of each resource of its FPGA that can be filled."""
    assert device.fpga is not None
    has = {name: (unit, getattr(device.fpga, field)) for name, (unit, field) in _RESOURCES.items()}
    return tuple(
        Budget(name, USABLE * count, f"{USABLE * count:g}{unit} of {device.name}")
        for name, (unit, count) in has.items()
    )


def room_for(least: Resources, fpga: Fpga, budgets: Sequence[Budget]) -> Fpga:
    """The part with no more of each resource than budgets allow to be filled.

    Those of a task, those in shares, and those that the `least` form of a net breaks leave all of it.
    """
    room = {field: getattr(fpga, field) for _, field in _RESOURCES.values()}
    for budget in budgets:
        if budget.quantity in _RESOURCES and not budget.relative and budget.task is None:
            _, field = _RESOURCES[budget.quantity]
            if getattr(least, budget.quantity) <= budget.value:
                room[field] = min(room[field], int(budget.value / USABLE))
    return fpga.model_copy(update=room)


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
    """Estimate for one layer with its FIFOs: of what pads its input, its own, and that of the activation after it."""
    given = layer.outputs * layer.bits
    total = logic_of(layer, reuse) + fifo_resources(given, layer.fifo_depth) + fifo_resources(given, CHAIN_DEPTH)
    if layer.kernel > 1:
        total += fifo_resources(layer.inputs // layer.kernel**2 * layer.entering, CHAIN_DEPTH)
    return total


def logic_of(layer: Product, reuse: int) -> Resources:
    """Estimate for one layer alone: multipliers, adders, weights, and the rows that a kernel looks back on."""
    multipliers, bits = layer.inputs * layer.outputs / reuse, layer.bits
    constant = reuse == 1 and bits <= _CONSTANT_BITS
    luts = _LAYER_LUTS + multipliers * (bits + layer.entering) / 2 * (_ADDER_LUTS + constant)
    if reuse > 1:
        luts += layer.inputs * (_WINDOW_LUTS + _WINDOW_BIT_LUTS * layer.entering)
    total = Resources(NETLIST_SHARE * luts, 0.0 if constant else multipliers, 0.0, layer.cycles(reuse))
    if reuse > 1 and multipliers * bits * reuse > _TABLE_BITS:
        total += Resources(brams=memory_blocks(multipliers * bits, reuse))
    for _ in range(layer.kernel - 1):
        total += _row(layer.inputs // layer.kernel**2 * layer.entering, layer.width * layer.stride)
    return total


def memory_blocks(bits: float, depth: int) -> float:
    """Block RAMs of 36 kbit, to the half, for words of `bits`."""
    return min(math.ceil(bits / wide) * math.ceil(depth / deep) for wide, deep in _BLOCK_SHAPES) / 2


def _row(bits: float, length: int) -> Resources:
    return (
        Resources(luts=bits * math.ceil(length / 32))
        if length <= _TABLE_DEPTH
        else Resources(brams=memory_blocks(bits, length))
    )


def fifo_resources(bits: float, depth: int) -> Resources:
    """Estimate for a FIFO of `depth` words of `bits`."""
    if depth <= CHAIN_DEPTH or bits * depth <= _TABLE_BITS:
        return Resources(luts=bits * math.ceil(depth / 16) / 2)
    return Resources(brams=math.ceil(bits / 18) * math.ceil(depth / 1024) / 2)


@dataclass(frozen=True)
class _Forms:
    """The forms that a layer may have, the largest and fastest first: its reuse, its cycles, and what it takes."""

    reuse: tuple[int, ...]
    cycles: tuple[int, ...]
    resources: tuple[Resources, ...]

    def within(self, pace: float) -> int:
        """The position of the slowest form that takes so many cycles at most; of the fastest where none does."""
        return max(bisect_right(self.cycles, pace) - 1, 0)


@lru_cache(maxsize=2**16)
def _forms_of(layer: Product) -> _Forms:
    """A layer's forms; a search meets the same layers in design after design."""
    factors = tuple(reuse_factors(layer))
    resources = tuple(resources_of(layer, each) for each in factors)
    return _Forms(factors, tuple(map(layer.cycles, factors)), resources)


def _total(forms: Sequence[_Forms], positions: Iterable[int]) -> Resources:
    return sum((form.resources[each] for form, each in zip(forms, positions, strict=True)), Resources())


def choose_reuse(layers: Sequence[Product], fpga: Fpga) -> tuple[dict[str, int], Resources]:
    """Reuse factors for the most images a second that the part has room for, and what they take.

    Every layer is as slow as the slowest may be, so that nothing is spent on waiting. Where even the smallest form does
    not fit, that one.
    """
    forms = [_forms_of(layer) for layer in layers]
    paces = sorted({each for form in forms for each in form.cycles})
    low, high = 0, len(paces) - 1
    while low < high:
        middle = (low + high) // 2
        total = _total(forms, [form.within(paces[middle]) for form in forms])
        low, high = (middle + 1, high) if total.lacking(fpga) else (low, middle)
    chosen = [form.within(paces[low]) for form in forms]
    reuse = {layer.name: form.reuse[each] for layer, form, each in zip(layers, forms, chosen, strict=True)}
    return reuse, _total(forms, chosen)


def smallest(layers: Sequence[Product]) -> Resources:
    """The least that a net can be built with: every layer reused as often as possible."""
    return sum((_forms_of(layer).resources[-1] for layer in layers), Resources())


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
    blocks = list(blocks)
    bits = {block.name: FIXED_BITS[precision.get(block.parameters, "float")] for block in blocks}
    return [
        Product(
            f"{block.name}.{conv.name}",
            conv.inputs // conv.groups * conv.kernel**2,
            conv.outputs,
            conv.kernel,
            conv.height,
            conv.width,
            bits[block.name],
            conv.stride,
            _fifo_depth(block, position),
            _input_bits(block, position, bits),
        )
        for block in blocks
        for position, conv in enumerate(block.convs)
    ]


def _input_bits(block: BlockPlan, position: int, bits: Mapping[str, int]) -> int:
    """Bits of what a block's convolution reads: those of the block before it, which is counted too or like this one."""
    if position and not block.parallel:
        return bits[block.name]
    source = block.inputs[position] if position < len(block.inputs) else block.inputs[0]
    return FIXED_BITS["float"] if source == INPUT else bits.get(source, bits[block.name])


def _fifo_depth(block: BlockPlan, position: int) -> int:
    """Places of a FIFO before a project has its own: of convolutions side by side all but the last wait for it."""
    conv = block.convs[position]
    return conv.height * conv.width if block.parallel and position < len(block.convs) - 1 else CHAIN_DEPTH
