from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau

from edgemtl.nas.latency.regression import fit_ridge, kendall_tau


def test_what_is_linear_is_found() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 4))
    values = rows @ np.array([2.0, -1.0, 0.5, 0.0]) + 3
    fitted = fit_ridge(rows, values)
    np.testing.assert_allclose(fitted(rows), values, atol=0.02)


def test_noise_is_shrunk_towards_the_mean() -> None:
    """Thirty columns that say nothing, of forty rows: the mean is what they are worth."""
    rng = np.random.default_rng(1)
    rows, values = rng.normal(size=(40, 30)), rng.normal(size=40)
    unseen = fit_ridge(rows, values)(rng.normal(size=(500, 30)))
    assert float(np.std(unseen)) < 0.5 * float(np.std(values))


def test_nothing_is_predicted_outside_of_what_was_fitted() -> None:
    rows = np.linspace(0, 1, 20)[:, None]
    fitted = fit_ridge(rows, 5 * rows[:, 0])
    assert fitted(np.array([[100.0]]))[0] == 5
    assert fitted(np.array([[-100.0]]))[0] == 0


def test_a_column_that_never_changes_has_no_say() -> None:
    rows = np.column_stack([np.ones(10), np.arange(10.0)])
    fitted = fit_ridge(rows, np.arange(10.0))
    assert fitted(np.array([[7.0, 4.5]]))[0] == pytest.approx(4.5)


def test_heavy_rows_decide() -> None:
    rows = np.zeros((4, 1))
    weights = np.array([1e6, 1.0, 1.0, 1.0])
    assert fit_ridge(rows, np.array([1.0, 9.0, 9.0, 9.0]), weights)(rows)[0] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_tau_is_that_of_scipy_ties_included(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 6, 20).astype(float), rng.integers(0, 6, 20).astype(float)
    assert kendall_tau(first, second) == pytest.approx(kendalltau(first, second).statistic)


def test_tau_of_what_ranks_nothing_is_zero() -> None:
    assert kendall_tau([1, 1, 1], [1, 2, 3]) == 0
