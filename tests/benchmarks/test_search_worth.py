from __future__ import annotations

from pathlib import Path

import pytest
from search_worth import fastest_uniform, rows_of, scaled_to

from edgemtl.nas.evaluation import Evaluator
from edgemtl.spaces import prunable_channels
from edgemtl.testing.landscape import space

DELTAS = {"chosen": [-0.01, 0.0, 0.01], "scaled": [-0.05, -0.04, -0.03], "pruned": [0.0, 0.0, 0.03]}


def test_leads_are_means_over_seeds_and_rivals_must_use_their_latency() -> None:
    rows = {row.name: row for row in rows_of("openvino", DELTAS, {"chosen": 10.0, "scaled": 10.2, "pruned": 8.0})}
    assert rows["openvino_ahead_of_scaled"].value == pytest.approx(4) and rows["openvino_ahead_of_scaled"].holds
    assert rows["openvino_ahead_of_pruned"].value == pytest.approx(-1)
    assert rows["openvino_ahead_of_pruned"].holds is False
    assert rows["openvino_latency_of_scaled"].holds and rows["openvino_latency_of_pruned"].holds is False


def test_the_largest_net_is_scaled_in_one_precision_by_timing_it_beside_the_chosen(
    tiny_evaluator: Evaluator, tmp_path: Path
) -> None:
    tiny = space(tmp_path, tiny_evaluator.source.tasks, tiny_evaluator.target.traits)
    chosen = tiny_evaluator.candidate(tiny.smallest())
    largest = fastest_uniform(tiny, tiny_evaluator).design
    scaled = scaled_to(largest, tiny_evaluator, chosen, tries=2)
    assert len({kind for block, kind in scaled.precision.items() if block != "engine"}) == 1
    assert {name: scaled.design[name] for name in ("s1.width", "s2.depth")} == {"s1.width": 16, "s2.depth": 2}
    channels = prunable_channels(scaled.design.plan)
    assert all(count <= channels[name] for name, count in dict(scaled.design.pruned).items())
    assert scaled.design.cost().flops <= largest.cost().flops and scaled.design.key not in ("", chosen.design.key)
    assert dict(scaled.design) == dict(largest)
    assert set(tiny_evaluator.simulated(scaled)) == {task.name for task in tiny.tasks}
