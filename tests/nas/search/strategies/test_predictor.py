from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest

from edgemtl.nas.search.strategies.predictor import LatencyPredictor, Predictor, features
from edgemtl.spaces import Design, Space
from edgemtl.testing.landscape import PAIR, space


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return space(tmp_path_factory.mktemp("pair"), PAIR)


def draw(pair: Space, count: int, seed: int = 0) -> list[Design]:
    rng = random.Random(seed)
    return [pair.random(rng) for _ in range(count)]


def test_a_row_has_every_option_and_the_exact_costs(pair: Space) -> None:
    designs = draw(pair, 20)
    rows = features(pair, designs)
    options = sum(len(choice.options) for choice in pair.choices)
    assert rows.shape == (20, options + 3 * (1 + len(PAIR)))
    assert np.array_equal(rows[:, :options].sum(1), np.full(20, len(pair.choices)))
    for row, design in zip(rows, designs, strict=True):
        hot = iter(row[:options])
        named = {(c.name, option) for c in pair.choices for option in c.options if next(hot)}
        assert named == set(design.items())
        costs = [design.cost(), *(design.cost([task.name]) for task in PAIR)]
        expected = [value for cost in costs for value in (cost.flops, cost.params, cost.weight_bytes)]
        assert np.allclose(np.exp(row[options:]), expected)


def test_an_option_that_was_not_seen_has_its_place(pair: Space) -> None:
    """A predictor fitted to float designs takes INT8 ones: rows are as wide whatever the designs."""
    rows = features(pair, [pair.smallest(), pair.largest(), pair.middle(), *draw(pair, 5)])
    predictor = Predictor(rows[:3], [0.0, 1.0, 0.5])
    assert predictor(rows).shape == (len(rows),)
    assert np.isfinite(predictor(rows)).all()


def test_a_linear_truth_is_recovered(pair: Space) -> None:
    rows = features(pair, draw(pair, 120))
    options = sum(len(choice.options) for choice in pair.choices)
    weights = np.random.default_rng(0).normal(size=options)
    truth = rows[:, :options] @ weights
    predictor = Predictor(rows[:80], list(truth[:80]))
    found = predictor(rows[80:])
    explained = 1 - np.square(found - truth[80:]).mean() / truth[80:].var()
    assert explained > 0.99
    assert math.isclose(predictor.error, float(np.abs(found - truth[80:]).mean()), rel_tol=1.0)


def test_order_is_kept_where_the_truth_bends(pair: Space) -> None:
    """What a search needs of a predictor is the order: a saturating truth with an interaction."""
    designs = draw(pair, 120)
    rows = features(pair, designs)
    truth = np.array([math.tanh(d.cost().params / 4000) - 0.2 * (d["s1_1.precision"] == "int8") for d in designs])
    found = Predictor(rows[:80], list(truth[:80]))(rows[80:])
    ranks = [np.argsort(np.argsort(values)) for values in (found, truth[80:])]
    assert np.corrcoef(ranks[0], ranks[1])[0, 1] > 0.9


def test_a_constant_and_a_pair_are_enough(pair: Space) -> None:
    rows = features(pair, draw(pair, 6))
    assert np.allclose(Predictor(rows, [0.3] * 6)(rows), 0.3)
    assert np.isfinite(Predictor(rows[:2], [1.0, 2.0])(rows)).all()


def test_scale_and_shift_of_a_metric_do_not_matter(pair: Space) -> None:
    rows = features(pair, draw(pair, 40))
    truth = rows[:, 0] - 2 * rows[:, 5]
    plain, scaled = Predictor(rows, list(truth)), Predictor(rows, list(1e6 + 1e4 * truth))
    assert np.allclose(1e6 + 1e4 * plain(rows), scaled(rows))
    assert math.isclose(scaled.error, 1e4 * plain.error, rel_tol=1e-6)


def test_the_same_rows_give_the_same_predictor(pair: Space) -> None:
    rows = features(pair, draw(pair, 30))
    values = list(np.random.default_rng(1).normal(size=30))
    assert np.array_equal(Predictor(rows, values)(rows), Predictor(rows, values)(rows))


def test_the_space_on_disk_is_what_the_tests_think(tmp_path: Path) -> None:
    assert len({len(choice.options) for choice in space(tmp_path, PAIR).choices}) > 1


def latency_of(design: Design, task: str = "") -> float:
    """A board on which depthwise MACs cost ten times dense ones and INT8 halves them."""
    total = 0.5
    for block in design.plan.path([task]) if task else design.plan.blocks:
        for conv in block.convs:
            total += conv.macs * 1e-5 * (10 if conv.groups > 1 else 1) / (1 + (design.precision[block.name] == "int8"))
    return total


@pytest.mark.parametrize("task", ["", "depth"])
def test_a_dozen_designs_tell_a_board_whose_time_is_a_sum_over_its_work(pair: Space, task: str) -> None:
    """Where a regression on options knows little yet."""
    designs = draw(pair, 72, seed=3)
    truth = np.array([latency_of(design, task) for design in designs])
    rows = features(pair, designs)
    counted = LatencyPredictor(designs[:12], list(truth[:12]), rows[:12], task)(designs[12:], rows[12:])
    regressed = np.exp(Predictor(rows[:12], list(np.log(truth[:12])))(rows[12:]))
    errors = [float(np.abs(found / truth[12:] - 1).mean()) for found in (counted, regressed)]
    assert errors[0] < 0.15
    assert errors[0] < errors[1]


def test_latency_is_positive_and_grows_with_work_not_seen_before(pair: Space) -> None:
    small = [pair.smallest(), *pair.uniform(pair.smallest())]
    predict = LatencyPredictor(small, [1.0] * len(small), features(pair, small))
    ends = [pair.smallest(), pair.largest()]
    least, most = predict(ends, features(pair, ends))
    assert 0 < least < most
