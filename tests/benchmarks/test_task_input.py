"""The comparison of `task_input`, on engines on paper whose speeds differ for as long as they live."""

from __future__ import annotations

import random

import pytest
from task_input import CONTROL, farthest, in_order, shares

NAMES = ("2", "4", "8", CONTROL)


def medians_on_paper(times: int, slower: float = 1.0, seed: int = 0) -> dict[str, list[float]]:
    """Medians of engines, 3 % apart from life to life, on a machine that drifts; that of 8 tasks is `slower`."""
    rng = random.Random(seed)
    drift = [1 + 0.2 * time / times for time in range(times)]
    return {name: [each * rng.gauss(1, 0.03) * (slower if name == "8" else 1) for each in drift] for name in NAMES}


def test_engines_of_one_speed_are_flat_however_their_lives_differ() -> None:
    for seed in range(5):
        assert farthest(shares(medians_on_paper(60, seed=seed), "2")) < 5


def test_an_engine_that_is_slower_by_more_than_the_limit_is_seen() -> None:
    for seed in range(5):
        compared = shares(medians_on_paper(60, 1.08, seed), "2")
        assert farthest(compared) > 5
        assert compared["8"][1] <= compared["8"][0] <= compared["8"][2]
        assert compared["8"][1] > 1


def test_too_few_times_to_bound_a_median_are_no_result() -> None:
    with pytest.raises(AssertionError, match="ten times"):
        shares(medians_on_paper(4), "2")


def test_every_engine_is_opened_first_and_last_equally_often() -> None:
    orders = [in_order(NAMES, time) for time in range(8)]
    for name in NAMES:
        assert sum(order[0] == name for order in orders) == sum(order[-1] == name for order in orders) == 2
    assert len({tuple(order) for order in orders}) == 8
