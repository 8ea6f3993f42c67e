from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgemtl.nas.evaluation.bets import Bets, MeanIouBets

CHANCES = (0.5, 0.25, 0.1, 0.02)
amounts = st.integers(0, 6).map(float)


def wealth_over(errors: Sequence[float], bets: Bets, order: Sequence[int]) -> list[float]:
    """Wealth after each image of an order."""
    series = []
    for image in order:
        bets.add(image, np.array([errors[image]]))
        series.append(float(bets.wealth[0]))
    return series


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(amounts, st.integers(1, 5)), min_size=2, max_size=5).filter(lambda e: any(x for x, _ in e)))
def test_a_sum_that_is_kept_is_lost_no_more_often_than_the_bound_says(pairs: list[tuple[float, int]]) -> None:
    """Exactly, over all orders of a few images: nobody gains on average, and great wealth is as rare as Ville says."""
    errors, expected = [error for error, _ in pairs], np.array([[share] for _, share in pairs], float)
    runs = [
        wealth_over(errors, Bets(expected, np.array([sum(errors)]), 0.01), order)
        for order in itertools.permutations(range(len(pairs)))
    ]
    for moment in zip(*runs, strict=True):
        assert np.mean(moment) <= 1 + 1e-6
    for chance in CHANCES:
        assert np.mean([max(run) >= 1 / chance - 1e-9 for run in runs]) <= chance


def test_all_hypotheses_must_be_refuted_and_each_stays_so() -> None:
    bets = Bets(np.ones((4, 2)), np.array([1.0, 8.0]), 0.25)
    bets.add(0, np.array([2.0, 0.0]))
    assert bets.wealth[0] == np.inf and not bets.won
    for image in (1, 2):
        bets.add(image, np.array([0.0, 4.1]))
    assert bets.won
    assert bets.totals == pytest.approx([2 * 4 / 3, 8.2 * 4 / 3])


def test_an_image_on_which_nothing_is_expected_may_come_last() -> None:
    bets = Bets(np.array([[1.0], [0.0]]), np.array([3.0]), 0.1)
    bets.add(0, np.array([1.0]))
    bets.add(1, np.array([1.0]))
    assert np.isfinite(bets.wealth).all() and not bets.won


Counts = NDArray[np.float64]
images = st.lists(
    st.lists(st.tuples(*[st.integers(0, 4).map(float)] * 3), min_size=2, max_size=2), min_size=2, max_size=5
)
"""Right, false and missed labels of two classes in a few images."""


def mean_iou(counts: Counts) -> tuple[Counts, float]:
    """IoU of each class that has labels, and their mean."""
    right, false, missed = counts.sum(0).T
    present = right + missed > 0
    ious = (right / np.maximum(right + false + missed, 1))[present]
    return ious, float(ious.mean())


@settings(deadline=None, max_examples=25)
@given(images, st.lists(st.integers(0, 3), min_size=5, max_size=5))
@example([[(0.0, 0.0, 0.0), (0.0, 0.0, 0.0)], [(0.0, 0.0, 0.0), (1.0, 0.0, 2.0)]], [0, 1, 0, 0, 0])
def test_a_mean_iou_that_is_kept_is_lost_no_more_often_than_the_bound_says(
    pictures: list[list[tuple[float, float, float]]], shares: list[int]
) -> None:
    """Exactly, over all orders: wealth at the true IoUs is 1 on average, and what counts is never more than it."""
    counts = np.array(pictures)
    assume((counts[:, :, [0, 2]].sum((0, 2)) > 0).any())
    ious, floor = mean_iou(counts)
    labels, expected = counts[:, :, [0, 2]].sum((0, 2)), 0.5 + np.array(shares[: len(counts)], float)
    orders = [*itertools.permutations(range(len(counts)))]
    won = dict.fromkeys(CHANCES, 0)
    for chance in CHANCES:
        at_truth = []
        for order in orders:
            bets, series = MeanIouBets(expected, labels, floor, chance), []
            for image in order:
                bets.add(image, counts[image, :, 1], counts[image, :, 2])
                series.append(bets.wealth_at(ious))
                assert -1e-9 <= bets.wealth <= series[-1] + 1e-9
            won[chance] += bets.won
            at_truth.append(series)
        if chance == CHANCES[-1]:  # those of a larger chance end betting sooner
            assert np.mean(at_truth, axis=0) == pytest.approx(np.ones(len(counts)), abs=1e-6)
        assert won[chance] <= chance * len(orders) + 1e-9


def test_what_every_image_to_come_cannot_mend_is_certain() -> None:
    labels = np.array([10.0, 10.0, 0.0])
    bets = MeanIouBets(np.ones(40), labels, 0.7, 1e-12)
    bets.add(0, np.array([0.0, 4.0, 9.0]), np.array([4.0, 0.0, 0.0]))
    assert bets.best == pytest.approx(0.6 + 10 / 14) and bets.won
    lenient = MeanIouBets(np.ones(40), labels, 0.65, 1e-12)
    lenient.add(0, np.array([0.0, 4.0, 9.0]), np.array([4.0, 0.0, 0.0]))
    assert not lenient.won, "of a class without labels nothing follows"


@pytest.mark.parametrize(("iou", "most"), [(0.2, 12), (0.4, 24), (0.5, 40)])
def test_the_worse_the_sooner(iou: float, most: int) -> None:
    """Four classes of 64 images, of which 0.65 is asked: a half to four fifths of the images are saved."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(50, 150, (64, 4)).astype(float)
    wrong = sizes * np.clip(rng.normal((1 - iou) / (1 + iou), 0.1, (64, 4)), 0, 1)
    bets = MeanIouBets(sizes.sum(1), sizes.sum(0), 0.65, 2e-4)
    seen = next(n for n, (each, size) in enumerate(zip(wrong, sizes, strict=True), 1) if _won(bets, n - 1, each))
    assert seen <= most


def _won(bets: MeanIouBets, image: int, wrong: Counts) -> bool:
    bets.add(image, wrong, wrong)
    return bets.won
