from __future__ import annotations

import math

import pytest
from _figures import hypervolume, kendall, mean_interval


def test_tau_of_equal_of_reversed_and_of_flat_rankings() -> None:
    assert kendall([1, 2, 3], [10, 20, 30]) == 1
    assert kendall([1, 2, 3], [3, 2, 1]) == -1
    assert kendall([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)  # five of six pairs agree, one does not
    assert kendall([1, 2, 3], [5, 5, 5]) == 0


def test_an_interval_of_three_seeds() -> None:
    mean, low, high = mean_interval([1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3)  # the 97.5 % quantile of Student's t with two degrees of freedom
    assert (mean, low, high) == pytest.approx((2.0, 2.0 - half, 2.0 + half))
    assert mean_interval([0.5]) == (0.5, 0.5, 0.5)


def test_hypervolume_counts_overlaps_once_and_nothing_beyond_the_reference() -> None:
    assert hypervolume([(0.25, 0.5), (0.5, 0.25)], (1.0, 1.0)) == pytest.approx(0.75 * 0.5 + 0.5 * 0.25)
    assert hypervolume([(0.5, 0.5), (1.5, 0.0)], (1.0, 1.0)) == pytest.approx(0.25)
