"""The mathematics of masks against what enumeration and finite differences give."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from grid_world import grid_space
from numpy.typing import NDArray

from edgemtl.errors import UserError
from edgemtl.nas.search.strategies.masks import (
    LinearControlVariate,
    MaskDistribution,
    MaskSpace,
    as_json,
    cost_gradient,
    draw,
    dual_ascent_step,
    effective_samples,
    entropy_gradient,
    importance,
    keep_above,
    log_probabilities,
    mask_space,
    policy_gradient,
    probabilities,
    share_prefix,
)
from edgemtl.spaces import Space
from edgemtl.testing.landscape import space as cnn_space

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(3, 5))
ALL = np.ones((3, 5), bool)
EVERY = np.array(list(itertools.product((False, True), repeat=5)))
Array = NDArray[np.float64]


@pytest.fixture
def grid(tmp_path: Path) -> Space:
    return grid_space(tmp_path)


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def loss_of(kept: NDArray[np.bool_]) -> Array:
    """A loss a task that blocks change together: (architectures, tasks)."""
    weights = np.random.default_rng(7).normal(size=(3, 5))
    return np.asarray((kept @ weights.T) ** 2 + kept[:, :1] * kept[:, 1:2])


def mixture(chances: Array) -> Array:
    """q of every architecture, by enumeration."""
    each = np.where(EVERY[:, None, :], chances[None], 1 - chances[None]).prod(2)
    return np.asarray(each.mean(1))


def test_probabilities_of_masks_are_products() -> None:
    chances = probabilities(LOGITS, ALL)
    np.testing.assert_allclose(chances, sigmoid(LOGITS))
    found = np.exp(log_probabilities(chances, EVERY))
    np.testing.assert_allclose(found, np.where(EVERY[:, None, :], chances[None], 1 - chances[None]).prod(2))
    np.testing.assert_allclose(found.sum(0), 1)


def test_where_a_task_may_not_choose_it_follows_the_others() -> None:
    present = ALL.copy()
    present[0, 2] = False
    chances = probabilities(LOGITS, present)
    assert chances[0, 2] == pytest.approx(sigmoid(LOGITS[1:, 2]).mean())


def test_probabilities_keep_away_from_certainty() -> None:
    chances = probabilities(np.array([[50.0, -50.0]]), np.ones((1, 2), bool))
    np.testing.assert_allclose(chances, [[0.98, 0.02]])


def test_draws_come_from_the_even_mixture() -> None:
    chances = probabilities(LOGITS, ALL)
    kept = draw(chances, 40_000, np.random.default_rng(1))
    codes = kept @ (1 << np.arange(5)[::-1])
    frequency = np.bincount(codes, minlength=32) / len(kept)
    np.testing.assert_allclose(frequency, mixture(chances), atol=0.01)


def test_importance_weights_are_exact_and_bounded() -> None:
    chances = probabilities(LOGITS, ALL)
    weights = importance(log_probabilities(chances, EVERY))
    np.testing.assert_allclose(weights, np.exp(log_probabilities(chances, EVERY)) / mixture(chances)[:, None])
    np.testing.assert_allclose((mixture(chances)[:, None] * weights).sum(0), 1)
    assert weights.max() <= 3


def test_importance_weights_survive_hundreds_of_blocks() -> None:
    """Products of so many probabilities are below what a float holds."""
    chances = np.stack([np.full(2000, 0.98), np.full(2000, 0.02)])
    weights = importance(log_probabilities(chances, np.ones((1, 2000), bool)))
    np.testing.assert_allclose(weights, [[2, 0]])


def test_effective_samples_count_what_counts() -> None:
    weights = np.array([[1.0, 3.0], [1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(effective_samples(weights), [3, 1])


@pytest.mark.parametrize("coefficients", [0.0, RNG.normal(size=(3, 5))])
def test_the_gradient_is_right_on_average(coefficients: Array | float) -> None:
    """Its mean over all draws of two architectures is the exact gradient of each task's expected loss."""
    chances = probabilities(LOGITS, ALL)
    q, losses = mixture(chances), loss_of(EVERY)
    weights = importance(log_probabilities(chances, EVERY))
    found = np.zeros_like(chances)
    for first, second in itertools.product(range(32), repeat=2):
        pair = [first, second]
        found += q[first] * q[second] * policy_gradient(chances, EVERY[pair], weights[pair], losses[pair], coefficients)

    def expected(logits: Array) -> Array:
        p = np.exp(log_probabilities(probabilities(logits, ALL), EVERY))
        return np.asarray((p * losses).sum(0))

    np.testing.assert_allclose(found, differences(expected), atol=1e-6)


def test_effects_of_places_are_found_whatever_a_step_has_in_common() -> None:
    """Losses linear in the masks, on images and with weights that differ from step to step."""
    rng, coefficients, control_variate = (
        np.random.default_rng(3),
        np.random.default_rng(4).normal(size=(3, 5)),
        LinearControlVariate.none(5, 3),
    )
    for step in range(400):
        kept = rng.random((4, 5)) < 0.5
        control_variate = control_variate.seen(kept, kept @ coefficients.T + 100 / (1 + step) + rng.normal(size=(1, 3)))
    np.testing.assert_allclose(control_variate.coefficients(), coefficients, rtol=0.2, atol=0.05)


def test_losses_linear_in_the_masks_leave_no_noise() -> None:
    chances, coefficients = probabilities(LOGITS, ALL), np.random.default_rng(4).normal(size=(3, 5))
    weights = importance(log_probabilities(chances, EVERY))
    exact = coefficients * chances * (1 - chances)
    for pair in ([0, 31], [5, 9], [30, 1]):
        losses = EVERY[pair] @ coefficients.T
        np.testing.assert_allclose(policy_gradient(chances, EVERY[pair], weights[pair], losses, coefficients), exact)


def differences(function: object, step: float = 1e-5) -> Array:
    """Derivative of each task's value by its own logits, by central differences."""
    assert callable(function)
    found = np.zeros_like(LOGITS)
    for column in range(LOGITS.shape[1]):
        moved = np.zeros_like(LOGITS)
        moved[:, column] = step
        found[:, column] = (function(LOGITS + moved) - function(LOGITS - moved)) / (2 * step)
    return found


def test_cost_and_entropy_gradients_are_derivatives() -> None:
    flops, prices = np.abs(RNG.normal(size=(3, 5))), np.array([1.5, 2.0, 0.0])
    masks = MaskSpace(("a", "b", "c"), tuple("vwxyz"), ALL, flops, np.ones(3))

    def paid(logits: Array) -> Array:
        return np.asarray(prices * (sigmoid(logits) * flops).sum(1) / flops.sum(1))

    def minus_entropy(logits: Array) -> Array:
        p = sigmoid(logits)
        return np.asarray((p * np.log(p) + (1 - p) * np.log(1 - p)).sum(1))

    chances = probabilities(LOGITS, ALL)
    np.testing.assert_allclose(cost_gradient(chances, masks, prices), differences(paid), atol=1e-6)
    np.testing.assert_allclose(entropy_gradient(chances), differences(minus_entropy), atol=1e-6)


def test_logistic_noise_makes_a_draw() -> None:
    masks = MaskSpace(("a", "b", "c"), tuple("vwxyz"), ALL, np.ones((3, 5)), np.ones(3))
    rng = np.random.default_rng(3)
    draws = np.mean(
        [keep_above(MaskDistribution(masks, LOGITS + rng.logistic(size=(3, 5))), 0.0) for _ in range(20_000)], axis=0
    )
    np.testing.assert_allclose(draws, sigmoid(LOGITS), atol=0.015)
    assert keep_above(MaskDistribution(masks, LOGITS), 100.0).sum() == 0


def test_tasks_agree_on_a_first_part_and_go_their_own_ways_after_it() -> None:
    present = ALL.copy()
    present[0, 1] = False
    masks = MaskSpace(("a", "b", "c"), tuple("vwxyz"), present, np.ones((3, 5)), np.ones(3))
    found = share_prefix(MaskDistribution(masks, LOGITS), 0.4).logits
    np.testing.assert_allclose(found[:, 0], LOGITS[:, 0].mean())
    np.testing.assert_allclose(found[:, 1], LOGITS[1:, 1].mean())
    np.testing.assert_allclose(found[:, 2:], LOGITS[:, 2:])
    np.testing.assert_allclose(share_prefix(MaskDistribution(masks, LOGITS), 0.0).logits, LOGITS)


def test_the_masks_of_a_space(grid: Space) -> None:
    masks = mask_space(grid)
    assert masks.tasks == ("depth", "kind")
    assert not masks.present[1, masks.positions.index("read1")]  # a class reads the coarsest path
    largest = grid.largest()
    whole = masks.base_flops + masks.flops.sum(1)
    np.testing.assert_allclose(whole, [largest.cost([task]).flops for task in masks.tasks])
    none = masks.values(np.zeros(masks.present.shape, bool))
    assert grid.design(none).key == grid.smallest().key
    assert grid.design(masks.values(np.ones(len(masks.positions), bool))).cost() == largest.cost()


def test_a_space_without_masks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing that a task may keep or skip.*grid"):
        mask_space(cnn_space(tmp_path))


def test_a_price_follows_the_tightest_limit_and_is_never_below_nothing(grid: Space) -> None:
    masks, prices = mask_space(grid), np.array([1.0, 0.05])
    np.testing.assert_allclose(dual_ascent_step(prices, masks, {"": 1.5}, 0.1), [1.05, 0.1])
    np.testing.assert_allclose(dual_ascent_step(prices, masks, {"": 0.5, "kind": 1.2}, 0.1), [0.95, 0.07])
    np.testing.assert_allclose(dual_ascent_step(prices, masks, {"": 0.1}, 0.1), [0.91, 0.0])
    np.testing.assert_allclose(dual_ascent_step(prices, masks, {"": 50.0}, 0.1), [1.1, 0.15])


def test_probabilities_are_told_by_name(grid: Space) -> None:
    masks = mask_space(grid)
    content = as_json(MaskDistribution(masks, np.zeros(masks.present.shape)))
    assert content["depth"]["read1"] == 0.5
    assert "read1" not in content["kind"]
