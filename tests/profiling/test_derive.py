from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemtl.profiling.derive import mode_sets, operator_shares, separate_ms, task_profiles, trunk_ms
from edgemtl.runtime import OperatorTime


@settings(deadline=None, max_examples=60)
@given(st.floats(0.1, 100), st.lists(st.floats(0.01, 50), min_size=2, max_size=6))
def test_an_additive_model_is_recovered(trunk: float, own: list[float]) -> None:
    parts = {f"task{i}": ms for i, ms in enumerate(own)}
    names = tuple(parts)
    measured = {
        frozenset(chosen): trunk + sum(parts[name] for name in chosen)
        for size in range(1, len(names) + 1)
        for chosen in combinations(names, size)
    }
    found = trunk_ms(names, measured)
    assert found is not None and found.kind == "derived"
    assert found.value == pytest.approx(trunk)
    whole = separate_ms(names, measured)
    assert whole is not None and whole.value == pytest.approx(len(names) * trunk + sum(own))
    for name, costs in task_profiles(names, measured).items():
        assert costs.own_ms is not None and costs.marginal_ms is not None
        assert costs.alone_ms.kind == "measured"
        assert costs.own_ms.value == pytest.approx(parts[name])
        assert costs.marginal_ms.value == pytest.approx(parts[name])


def test_one_task_has_no_trunk_to_tell() -> None:
    measured = {frozenset(("depth",)): 3.0}
    assert trunk_ms(("depth",), measured) is None
    assert separate_ms(("depth",), measured) is None
    costs = task_profiles(("depth",), measured)["depth"]
    assert (costs.alone_ms.value, costs.own_ms, costs.marginal_ms) == (3.0, None, None)


@pytest.mark.parametrize(("count", "modes"), [(1, 1), (2, 3), (3, 7), (4, 9)])
def test_modes_are_all_alone_and_all_but_one_without_repeats(count: int, modes: int) -> None:
    tasks = tuple(f"t{i}" for i in range(count))
    found = mode_sets(tasks)
    assert len(found) == modes == len({frozenset(chosen) for chosen in found.values()})
    assert next(iter(found.values())) == tasks
    everything = {frozenset(chosen) for chosen in found.values()}
    assert all(frozenset((task,)) in everything for task in tasks)
    assert count == 1 or all(frozenset(tasks) - {task} in everything for task in tasks)


def test_operators_are_summed_by_block_and_type() -> None:
    times = [
        OperatorTime("blocks.s1_1.a", "Conv", "s1_1", 3.0),
        OperatorTime("blocks.s1_1.b", "Add", "s1_1", 1.0),
        OperatorTime("blocks.depth_head.a", "Conv", "depth_head", 5.0),
        OperatorTime("reorder", "Reorder", "", 1.0),
    ]
    found = operator_shares(times, {"depth_head": "depth", "another": "edges"}, 7)
    assert found is not None and (found.total_ms, found.runs) == (10.0, 7)
    assert [(row.name, row.owner, row.ms, row.operators) for row in found.by_block] == [
        ("depth_head", "depth", 5.0, 1),
        ("s1_1", "", 4.0, 2),
        ("(outside of blocks)", "", 1.0, 1),
    ]
    assert {row.name: row.share for row in found.by_type} == {"Conv": 0.8, "Add": 0.1, "Reorder": 0.1}
    assert operator_shares([], {}, 1) is None


def test_what_is_fused_across_blocks_and_the_unit_that_ran_it_are_shown() -> None:
    times = [
        OperatorTime("a + b", "DLA, fused", "", 3.0, ("d_1", "d_2"), "dla"),
        OperatorTime("c", "Conv", "s_1", 1.0, (), "gpu (fallback)"),
        OperatorTime("d", "Conv", "s_1", 2.0, (), "dla"),
        OperatorTime("e", "Myelin, fused", "", 2.0, ("s_1", "s_2", "d_1", "d_2"), "gpu"),
    ]
    found = operator_shares(times, {"d_1": "depth", "d_2": "depth"}, 7)
    assert found is not None
    rows = {row.name: (row.owner, row.unit) for row in found.by_block}
    assert rows == {
        "fused: d_1 + d_2": ("depth", "dla"),
        "s_1": ("", "dla, gpu (fallback)"),
        "fused: s_1 to d_2, 4 blocks": ("", "gpu"),
    }
    assert [(row.name, row.ms) for row in found.by_unit] == [("dla", 5.0), ("gpu", 2.0), ("gpu (fallback)", 1.0)]


def test_more_blocks_and_types_than_a_profile_holds_are_one_last_row() -> None:
    times = [OperatorTime(f"b{n}.a", f"Op{n}", f"b{n}", 2.0 if n < 3 else 1.0) for n in range(10_003)]
    found = operator_shares(times, {}, 1)
    assert found is not None and (len(found.by_block), len(found.by_type)) == (10_000, 1000)
    assert [row.ms for row in found.by_block[:4]] == [2.0, 2.0, 2.0, 1.0]
    assert (found.by_block[-1].name, found.by_block[-1].ms, found.by_block[-1].operators) == ("(4 others)", 4.0, 4)
    for rows in (found.by_block, found.by_type):
        assert sum(row.operators for row in rows) == 10_003 and sum(row.share for row in rows) == pytest.approx(1)
