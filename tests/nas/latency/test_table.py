from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edgemtl.nas.latency import MeasuredDesign, Part, design_parts, fit_table, spread_designs
from edgemtl.nas.latency.parts import attributed, conversions
from edgemtl.nas.latency.table import LatencyTable
from edgemtl.runtime import OperatorTime
from edgemtl.spaces import Design, Space
from edgemtl.testing.landscape import PAIR, TINY, space

WIDE = TINY.replace("[8, 16, 24]", "[8, 16, 24, 32, 40]").replace("depth: [1, 2]", "depth: [1, 2, 3]")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return space(tmp_path_factory.mktemp("wide"), PAIR, text=WIDE)


def part_ms(part: Part) -> float:
    """A machine on which a part takes what its work does, at rates of its kind."""
    rate = 2.0 if "int8" in part.kind.split(" from ")[0] else 1.0
    slow = 4.0 if part.kind.startswith("depthwise") else 1.0
    return (slow * part.macs / rate + 3 * part.writes) / 1e6 + 1e-3


def measured(design: Design, noise: random.Random | None = None) -> MeasuredDesign:
    """A design on that machine; what is outside of blocks takes time for each element that changes its precision."""
    unnamed = sum(conversions(design)) / 2e6 + 0.002
    parts = [part_ms(part) for part in design_parts(design)]
    alone = sum(part_ms(part) for part in design_parts(design, "depth")) + sum(conversions(design, "depth")) / 2e6
    factor = noise.gauss(1, 0.01) if noise else 1.0
    whole = (sum(parts) + unnamed) * factor
    return MeasuredDesign(design, {"": (1.1 * whole, whole), "depth": (alone * factor,)}, tuple(parts), unnamed)


@pytest.fixture(scope="module")
def table(wide: Space) -> LatencyTable:
    noise = random.Random(0)
    return fit_table([measured(design, noise) for design in spread_designs(wide, 40)])


def random_designs(where: Space, count: int, seed: int) -> list[Design]:
    rng = random.Random(seed)
    return [rng.choice([drawn, *where.uniform(drawn)]) for drawn in (where.random(rng) for _ in range(count))]


@pytest.mark.parametrize("scope", ["", "depth"])
def test_designs_never_seen_are_predicted(wide: Space, table: LatencyTable, scope: str) -> None:
    designs = random_designs(wide, 60, 1)
    truth = np.array([measured(design).latency_ms[scope] for design in designs])
    error = np.abs(table.predict(designs, scope) / truth - 1)
    assert float(error.mean()) < 0.03
    assert float(error.mean()) < 2 * table.errors[scope]
    assert table.held_out[scope].designs == 40 and table.held_out[scope].tau > 0.9


def test_the_latency_is_that_of_the_fastest_engine_and_shares_are_those_of_the_profile(wide: Space) -> None:
    each = MeasuredDesign(wide.largest(), {"": (4.0, 2.0, 3.0)}, (3.0, 1.0), 1.0)
    assert each.latency_ms == {"": 2.0}
    np.testing.assert_allclose(each.parts_ms, [1.2, 0.4])
    assert each.moving_ms == pytest.approx(0.4)


def test_the_error_is_of_designs_that_had_no_part_in_it(wide: Space) -> None:
    """Latencies that follow nothing cannot be predicted, and the error says so."""
    rng = random.Random(0)
    table = fit_table(
        [
            MeasuredDesign(design, {"": (rng.uniform(1, 3),)}, tuple(1.0 for _ in design_parts(design)), 0.0)
            for design in spread_designs(wide, 24)
        ]
    )
    assert table.errors[""] > 0.15
    assert abs(table.held_out[""].tau) < 0.6


def test_equal_parts_have_equal_keys_and_every_block_has_its_parts(wide: Space) -> None:
    design = wide.largest()
    parts = design_parts(design)
    assert len({(part.block, part.layer) for part in parts}) == len(parts)
    assert {part.block for part in parts} == {block.name for block in design.plan.blocks}
    assert {part.layer for part in parts if part.block == "s1_1"} == {"dense", "project", ""}
    rows: dict[str, set[tuple[int, ...]]] = {}
    for each in random_designs(wide, 40, 2):
        for part in design_parts(each):
            rows.setdefault(part.key, set()).add((part.macs, part.reads, part.writes, part.weights))
    assert all(len(work) == 1 for work in rows.values())


def test_parts_count_what_the_cost_counts(wide: Space) -> None:
    for design in random_designs(wide, 10, 3):
        for task in ("", "depth"):
            assert 2 * sum(part.macs for part in design_parts(design, task)) == design.cost(task or None).flops


def test_the_precision_of_what_feeds_a_part_is_part_of_its_key(wide: Space) -> None:
    plain = wide.largest()
    mixed = wide.design({**plain, "s1_1.precision": "int8"})

    def key(design: Design, block: str, layer: str) -> str:
        return next(part.key for part in design_parts(design) if (part.block, part.layer) == (block, layer))

    assert key(plain, "s2_1", "dense") != key(mixed, "s2_1", "dense"), "it is fed by another precision"
    assert key(plain, "s2_1", "project") == key(mixed, "s2_1", "project")
    assert key(plain, "stem", "") != key(mixed, "stem", ""), "it feeds another precision"
    rounded, floating = conversions(mixed)
    assert (conversions(plain), rounded > 0, floating > 0) == ((0, 0), True, True)


def test_operators_are_parts_by_their_names(wide: Space) -> None:
    parts = design_parts(wide.largest())
    times = [
        OperatorTime("blocks.s1_1.dense.conv_nchwc", "Conv", "s1_1", 0.5),
        OperatorTime("blocks.s1_1.dense.act.q", "QuantizeLinear", "s1_1", 0.25),
        OperatorTime("blocks.s1_1.project.conv/WithoutBiases", "Convolution", "s1_1", 0.125),
        OperatorTime("ReorderOutput", "ReorderOutput", "", 2.0),
        OperatorTime("blocks.no_such.conv.conv", "Conv", "no_such", 1.0),
    ]
    spent, unnamed = attributed(times, parts)
    by_name = {(part.block, part.layer): ms for part, ms in zip(parts, spent, strict=True)}
    assert by_name["s1_1", "dense"] == 0.5
    assert by_name["s1_1", ""] == 0.25
    assert by_name["s1_1", "project"] == 0.125
    assert (unnamed, sum(spent)) == (3.0, 0.875)


def sizes(designs: Sequence[Design]) -> list[int]:
    return [design.cost().flops for design in designs]


def test_designs_are_spread_over_sizes_precisions_and_parts(wide: Space) -> None:
    picked = spread_designs(wide, 24)
    assert len({design.key for design in picked}) == 24
    assert picked == spread_designs(wide, 24)
    ends = {wide.largest().key, wide.smallest().key, wide.largest("int8").key}
    assert ends < {design.key for design in picked}
    uniform = {design.key for design in picked if len(set(list(design.precision.values())[1:])) == 1}
    assert 8 <= len(uniform) < 24
    seen = {part.key for design in picked for part in design_parts(design)}
    drawn = {part.key for design in random_designs(wide, 24, 0) for part in design_parts(design)}
    assert len(seen) > len(drawn)
    assert max(sizes(picked)) > 3 * min(sizes(picked))


def test_a_space_with_few_designs_gives_them_all(tmp_path: Path) -> None:
    text = TINY.replace("[8, 16, 24]", "[8]").replace("[8, 16]", "[8]").replace("depth: [1, 2]", "depth: [1]")
    text = text.replace("[depthwise, fused]", "[fused]").replace("[1, 2]", "[1]").replace("[float, int8]", "[float]")
    few = space(tmp_path, PAIR, text=text)
    assert len(spread_designs(few, 10)) == 1
