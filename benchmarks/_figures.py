"""Figures that several benchmarks draw from their scores: rank correlation, intervals of means, hypervolumes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95


class Interval(NamedTuple):
    """A mean with the limits of its confidence interval."""

    mean: float
    low: float
    high: float


def kendall(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-b of two rankings, -1 to 1; 0 where one of them does not tell its members apart.

    >>> round(kendall([1, 2, 3, 4], [1, 2, 4, 3]), 3)
    0.667
    """
    tau = float(stats.kendalltau(first, second).statistic)
    return 0.0 if np.isnan(tau) else tau


def mean_interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Mean and interval by Student's t; of a single value all limits are the value itself.

    >>> [round(each, 2) for each in mean_interval([1.0, 2.0, 3.0])]
    [2.0, -0.48, 4.48]
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean, mean, mean)
    error = statistics.stdev(values) / len(values) ** 0.5
    half = float(stats.t.ppf(0.5 + level / 2, len(values) - 1)) * error
    return Interval(mean, mean - half, mean + half)


def hypervolume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """The volume between points and reference, less being better in every coordinate; what is beyond it adds nothing.

    >>> hypervolume([(0.0, 0.5), (0.5, 0.0), (2.0, 0.0)], (1.0, 1.0))
    0.75
    """
    from pymoo.indicators.hv import HV

    return float(HV(ref_point=np.asarray(reference, float))(np.asarray(points, float)))
