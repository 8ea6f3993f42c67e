from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from edgemtl.profiling import Samples, percentile, percentile_interval, ratios, samples_needed

TIMES = st.lists(st.floats(0.001, 1e4), min_size=10, max_size=700)


@settings(deadline=None, max_examples=60)
@given(TIMES, st.sampled_from([0.5, 0.75, 0.9, 0.95, 0.99]))
def test_percentile_agrees_with_numpy_or_is_hidden(times: list[float], q: float) -> None:
    found = percentile(times, q)
    if len(times) * (1 - q) < 5 - 1e-9:
        assert found is None
    else:
        assert found == pytest.approx(np.quantile(times, q), rel=1e-12)


@pytest.mark.parametrize(("q", "needed"), [(0.5, 10), (0.9, 50), (0.95, 100), (0.99, 500), (0.999, 5000)])
def test_the_rule_of_five_in_the_tail(q: float, needed: int) -> None:
    assert samples_needed(q) == needed
    assert percentile([1.0] * (needed - 1), q) is None
    assert percentile([1.0] * needed, q) == 1.0
    assert q**needed < math.exp(-5)


@pytest.mark.parametrize(("n", "q"), [(10, 0.5), (101, 0.5), (200, 0.9), (2000, 0.99)])
def test_interval_has_the_coverage_of_the_binomial(n: int, q: float) -> None:
    """Order statistics of 1..n are their own ranks, so the interval's coverage can be computed exactly."""
    interval = percentile_interval([float(rank) for rank in range(1, n + 1)], q)
    assert interval is not None
    low, high = (int(rank) for rank in interval)
    below = stats.binom(n, q)
    assert below.cdf(high - 1) - below.cdf(low - 1) >= 0.95
    assert below.cdf(low - 1) <= 0.025 < below.cdf(low)
    assert below.cdf(high - 2) < 0.975 <= below.cdf(high - 1)


def test_interval_is_absent_where_the_samples_do_not_bound_it() -> None:
    assert percentile_interval([1.0] * 9, 0.5) is None
    assert percentile_interval([float(i) for i in range(50)], 0.9) is None or stats.binom(50, 0.9).cdf(49) >= 0.975
    assert percentile_interval([float(i) for i in range(500)], 0.99, confidence=0.9999) is None


@settings(deadline=None, max_examples=60)
@given(TIMES)
def test_block_keeps_every_sample_and_clips_none(times: list[float]) -> None:
    block = Samples(tuple(times), 3, len(times)).block(device="host", runtime="x", threads=2, includes="a call")
    assert block.samples_ms == tuple(times)
    assert (block.n, block.warmup, block.threads, block.kind) == (len(times), 3, 2, "measured")
    assert block.min_ms == min(times)
    assert block.mean_ms == pytest.approx(np.mean(times))
    assert block.cov == pytest.approx(np.std(times, ddof=1) / np.mean(times), abs=1e-12)
    assert block.p50_ms == pytest.approx(np.median(times))
    assert (block.p99_ms is None) == (len(times) < 500)
    assert block.typical_ms == block.p50_ms


def test_few_samples_quote_the_mean() -> None:
    block = Samples((1.0, 2.0, 6.0), 0, 3).block(device="host", runtime="x", threads=0, includes="a call")
    assert block.p50_ms is None
    assert block.typical_ms == 3.0


def test_ratio_recovers_a_known_factor_and_its_interval_covers_it() -> None:
    rng = np.random.default_rng(1)
    base = rng.lognormal(0, 0.1, 400)
    found = ratios({"a": Samples(tuple(base), 0, 10), "b": Samples(tuple(2 * rng.lognormal(0, 0.1, 400)), 0, 10)}, "a")
    assert set(found) == {"b"}
    assert found["b"].low < 2 < found["b"].high
    assert found["b"].value == pytest.approx(2, rel=0.05)


def test_interval_of_a_ratio_sees_that_visits_differ() -> None:
    """Samples of one visit are alike: an interval that took them for independent would be far too narrow."""
    rng = np.random.default_rng(2)
    levels = np.repeat(rng.normal(10, 1, 20), 10)
    steady = Samples(tuple(np.full(200, 10.0)), 0, 10)
    by_visit = ratios({"a": steady, "b": Samples(tuple(levels), 0, 10)}, "a")["b"]
    as_if_independent = ratios({"a": steady, "b": Samples(tuple(levels), 0, 1)}, "a")["b"]
    assert by_visit.high - by_visit.low > 1.5 * (as_if_independent.high - as_if_independent.low)
