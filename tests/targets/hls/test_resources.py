from __future__ import annotations

from dataclasses import replace

import pytest

from edgemtl.devices import load_device
from edgemtl.errors import UserError
from edgemtl.targets.hls.resources import (
    Product,
    Resources,
    check_fits,
    choose_reuse,
    fifo_resources,
    products_of,
    resources_of,
    reuse_factors,
    room_for,
    smallest,
)
from edgemtl.testing import small_net
from edgemtl.units import find_quantity, parse_budget

CONV = Product("conv", 9 * 16, 32, 3, 24, 32, 16)
POINTWISE = Product("pointwise", 64, 16, 1, 24, 32, 16)


def test_reuse_factors_divide_the_products_evenly() -> None:
    factors = reuse_factors(CONV)
    assert factors[0] == 1 and factors[-1] == 9 * 16 * 32
    assert all(9 * 16 * 32 % each == 0 for each in factors)
    assert 5 not in factors and 144 in factors and 288 in factors and 192 not in factors


def test_reuse_factors_are_those_that_hls4ml_accepts() -> None:
    backends = pytest.importorskip("hls4ml.backends")
    backend = backends.get_backend("Vitis")
    for inputs, outputs in ((27, 16), (144, 32), (72, 10)):
        layer = Product("conv", inputs, outputs, 3, 8, 8, 16)
        assert reuse_factors(layer) == backend.get_valid_reuse_factors(inputs, outputs)


def test_a_1x1_convolution_is_reused_no_more_often_than_it_has_inputs() -> None:
    """Such a project would not compile."""
    assert reuse_factors(POINTWISE)[-1] == 64


def test_reuse_trades_multipliers_for_cycles() -> None:
    fast, slow = resources_of(CONV, 1), resources_of(CONV, 144)
    assert (fast.dsps, slow.dsps) == (144 * 32, 32)
    assert slow.cycles > 15 * fast.cycles


def test_a_pixel_that_is_read_takes_cycles_too() -> None:
    """64 x 64 pixels are read and 30 x 30 given, as in a published report of Vitis HLS."""
    layer = Product("conv", 25, 2, 5, 30, 30, 8, stride=2)
    assert layer.cycles(50) == 900 * 56 + (64 * 64 - 900) * 4


def test_rows_have_the_bits_that_come_in_and_weights_their_own() -> None:
    """A block in eight bits behind one in sixteen holds rows of the latter."""
    narrow, wide = replace(CONV, bits=8), replace(CONV, width=640)
    for layer in (CONV, wide):
        eight, sixteen = replace(layer, bits=8, input_bits=16), replace(layer, input_bits=8)
        assert resources_of(replace(layer, bits=8), 144).brams <= resources_of(eight, 144).brams
        assert resources_of(sixteen, 144).brams <= resources_of(layer, 144).brams
    assert narrow.entering == 8 and replace(narrow, input_bits=16).entering == 16
    rows = [resources_of(replace(wide, bits=8, input_bits=bits), 144).brams for bits in (8, 16)]
    assert rows[1] > rows[0]


def test_what_a_block_reads_has_the_bits_of_the_block_before_it() -> None:
    blocks = small_net("fused").plan.blocks
    eight = {blocks[1].parameters: "int8"}
    products = {product.name: product for product in products_of(blocks, eight)}
    first, second = (f"{blocks[1].name}.{conv.name}" for conv in blocks[1].convs[:2])
    after = f"{blocks[2].name}.{blocks[2].convs[0].name}"
    assert [(products[name].bits, products[name].entering) for name in (first, second, after)] == [
        (8, 16), (8, 8), (16, 8)
    ]  # fmt: skip


def test_fifos_are_of_block_ram_from_some_size_on() -> None:
    assert fifo_resources(4096, 2).brams == 0
    assert fifo_resources(30, 25).brams == 0
    assert fifo_resources(100, 25).brams == 3  # six of half a block
    assert fifo_resources(40, 900).brams == 1.5


def test_a_part_is_filled_and_no_more() -> None:
    fpga = load_device("zcu104").fpga
    assert fpga is not None
    layers = [CONV, POINTWISE, Product("wide", 9 * 64, 64, 3, 12, 16, 16)]
    reuse, total = choose_reuse(layers, fpga)
    assert not total.lacking(fpga)
    paces = sorted({layer.cycles(each) for layer in layers for each in reuse_factors(layer)})
    faster = paces[paces.index(total.cycles) - 1]
    hurried = [max(each for each in reuse_factors(x) if x.cycles(each) <= max(faster, x.cycles(1))) for x in layers]
    taken = sum((resources_of(x, each) for x, each in zip(layers, hurried, strict=True)), Resources())
    assert taken.lacking(fpga)
    assert all(layer.cycles(reuse[layer.name]) <= total.cycles for layer in layers)


def test_budgets_leave_less_of_a_part_but_for_those_that_a_net_breaks_anyway() -> None:
    fpga = load_device("zcu104").fpga
    assert fpga is not None
    layers = [CONV, POINTWISE, Product("wide", 9 * 64, 64, 3, 12, 16, 16)]
    least, (_, whole) = smallest(layers), choose_reuse(layers, fpga)
    most = round((least.dsps + whole.dsps) / 2)
    budgets = [parse_budget(text) for text in (f"{most}DSP", "1LUT", "50%BRAM", "depth:1DSP", "2GFLOPs")]
    room = room_for(least, fpga, budgets)
    assert (room.luts, room.bram_36k) == (fpga.luts, fpga.bram_36k)
    reuse, total = choose_reuse(layers, room)
    assert least.dsps <= total.dsps <= most < whole.dsps and total.cycles > whole.cycles
    assert set(reuse) == {layer.name for layer in layers}
    assert room_for(least, fpga, []) == room_for(least, fpga, [parse_budget("99999DSP")]) == fpga


def test_a_part_that_is_too_small_says_by_how_much_and_which_would_fit() -> None:
    net = smallest([Product("conv", 9 * 128, 500, 3, 12, 16, 16)])
    check_fits(net, load_device("zcu102"))
    needs = (
        r"^device kv260 is too small: the net needs an estimated \d+ BRAM \(\d+% more than the 115 that can be filled\)"
    )
    with pytest.raises(UserError, match=rf"{needs}: device zcu102 has room; one of about \d+% of its products would"):
        check_fits(net, load_device("kv260"))
    with pytest.raises(UserError, match=r"no device known here has room; one of about \d+% of its products would fit"):
        check_fits(smallest([Product("conv", 9 * 4096, 4000, 3, 12, 16, 16)]), load_device("zcu102"))


def test_budgets_in_resources_are_understood_and_say_whose_they_are() -> None:
    assert parse_budget("900DSP").value == 900
    assert parse_budget("80kLUT").quantity == "luts"
    assert parse_budget("2Mcycles").value == 2e6
    count = find_quantity("dsps").count
    assert count is not None
    with pytest.raises(UserError, match="add --target hls and its --device"):
        count([], {})
