"""Bets on the errors of images that come in a random order, with a bound on the chance that they are won wrongly.

A hypothesis says that the errors of all images, none below zero, sum to at most some total. If it holds, an image that
is drawn next has at most its share of what is left of the total, on average. So a gambler who bets on more does not win
in the mean: wealth that is multiplied by `1 + stake * (error - share)` for each image is a nonnegative supermartingale,
and exceeds 1/p at any time with a chance of p at most (Ville's inequality). This is betting on a mean when drawing
without replacement (Waudby-Smith and Ramdas 2023; ALPHA of Stark 2023, for the audit of elections). It needs neither an
upper bound of errors nor a distribution. Ours: shares need not be equal, so that images on which errors were expected
say nothing; and where the errors so far exceed the total, the hypothesis is refuted for certain.

A mean of ratios, as mIoU, is at least t if there are ratios of classes that are t on average, each of which is such a
hypothesis. All of them are refuted together: wealth that is added to, and not multiplied, is linear in the ratios, and
the least of a linear function over them is found by sorting. Ours as well.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bets", "MeanIouBets"]

_ROUNDING, _MOST_LOG_WEALTH = 1e-9, 500.0
_STAKES = np.array([1 / 16, 1 / 4, 1.0])
"""Shares of the largest stake; the wealth is the mean over gamblers with one each."""

Array = NDArray[np.float64]


class Bets:
    """Bets against H hypotheses, all of which are won at a `chance` of that at most where one of them holds.

    `allowed` (H,) are the totals, `expected` (N, H) says how errors are taken to be distributed over N images, in any
    scale.
    """

    def __init__(self, expected: Array, allowed: Array, chance: float) -> None:
        self._allowed, self._needed = allowed, 1 / chance
        self._expected, self._unseen, self._seen = expected, expected.copy(), np.zeros_like(allowed)
        self._log_wealth = np.zeros((len(_STAKES), len(allowed)))
        self._won = np.zeros(len(allowed), np.bool_)

    def add(self, image: int, errors: Array) -> None:
        """Bet on an image, by its number and its errors (H,), which may be infinite."""
        left, unseen, largest = self._allowed - self._seen, self._unseen.sum(0), self._unseen.max(0)
        usable = (left > 0) & (largest > 0) & np.isfinite(errors)
        with np.errstate(all="ignore"):  # a gambler who staked all may lose all; what is not usable is left out
            gain = (errors * unseen / left - self._unseen[image]) / largest
            logs = np.log(np.maximum(0.0, 1 + _STAKES[:, None] * gain))
        self._log_wealth += np.where(usable, logs, 0.0)
        self._seen = self._seen + errors
        self._unseen[image] = 0.0
        self._won |= self.wealth >= self._needed

    @property
    def wealth(self) -> Array:
        """Mean wealth of the gamblers against each hypothesis, 1 before the first bet; infinite where it is refuted."""
        kept = self._seen <= self._allowed * (1 + _ROUNDING) + _ROUNDING
        return np.asarray(np.where(kept, np.exp(np.minimum(self._log_wealth, _MOST_LOG_WEALTH)).mean(0), math.inf))

    @property
    def won(self) -> bool:
        """Whether the bets against every hypothesis were won, each at some time."""
        return bool(self._won.all())

    @property
    def totals(self) -> Array:
        """Expected sums of errors over all images (H,), by the ratio of those so far to what was expected of them."""
        expected = self._expected.sum(0)
        return np.asarray(self._seen * expected / np.maximum(expected - self._unseen.sum(0), 1e-300))


class MeanIouBets:
    """Bets against a mean IoU of `least` or more over the classes that have labels, won at a `chance` where it is so.

    A class with N labels, of which M are missed, and F false predictions has an IoU of (N - M) / (N + F): it is x just
    where M + x F = (1 - x) N. So for the true IoUs x the errors (M + x F) / N of all images and classes sum to the sum
    of 1 - x, both linear in x; x lies between 0 and what a class has if every image to come is right, and its mean is
    `least` or more. Each gambler has a wealth that is linear in x, too: to it is added a share of its own least over
    all such x, times the error beyond the image's share of what is left. `labels` (K,) are the classes' numbers of
    labels, `expected` (N,) says how errors are taken to be distributed over images.
    """

    def __init__(self, expected: Array, labels: Array, least: float, chance: float) -> None:
        self._present = labels > 0
        self._labels, self._needed = labels[self._present], 1 / chance
        self._sum = least * len(self._labels)
        self._unseen = expected.copy()
        self._missed, self._false = np.zeros_like(self._labels), np.zeros_like(self._labels)
        self._constant, self._rates = np.ones(len(_STAKES)), np.zeros((len(_STAKES), len(self._labels)))
        self.won = False

    def add(self, image: int, false: Array, missed: Array) -> None:
        """Bet on an image, by its number and its false and missed labels of each class (K,)."""
        new_missed, new_false = (counts[self._present] / self._labels for counts in (missed, false))
        left, left_rates = len(self._labels) - self._missed.sum(), -1 - self._false
        most_left, largest, unseen = -self._least(-left, -left_rates), self._unseen.max(), self._unseen.sum()
        if not self.won and most_left > _ROUNDING and largest > 0:  # of what rounding left a stake has no end
            share = self._unseen[image] / unseen
            stakes = _STAKES * self._least_wealth() / (most_left * largest / unseen)
            self._constant = self._constant + stakes * (new_missed.sum() - left * share)
            self._rates = self._rates + stakes[:, None] * (new_false - left_rates * share)
        self._missed, self._false = self._missed + new_missed, self._false + new_false
        self._unseen[image] = 0.0
        self.won |= self.best < self._sum * (1 - _ROUNDING) - _ROUNDING or self.wealth >= self._needed

    @property
    def best(self) -> float:
        """The sum of the classes' IoUs if all images to come are right."""
        return float(self._highest.sum())

    @property
    def wealth(self) -> float:
        """The least over all IoUs whose mean is enough of the gamblers' mean wealth, 1 before the first bet."""
        return self._least(float(self._constant.mean()), self._rates.mean(0))

    def wealth_at(self, ious: Array) -> float:
        """The gamblers' mean wealth where these are the IoUs of the classes that have labels."""
        return float((self._constant + self._rates @ ious).mean())

    @property
    def _highest(self) -> Array:
        return (1 - self._missed) / (1 + self._false)

    def _least_wealth(self) -> Array:
        pairs = zip(self._constant, self._rates, strict=True)
        return np.array([self._least(float(constant), rates) for constant, rates in pairs])

    def _least(self, constant: float, rates: Array) -> float:
        """The least of a linear function over the IoUs that are possible: those with the least rates are highest."""
        order = np.argsort(rates, kind="stable")
        highest, sloped = self._highest[order], rates[order]
        before = np.cumsum(highest) - highest
        ious = np.where(sloped < 0, highest, np.clip(self._sum - before, 0.0, highest))
        return float(constant + sloped @ ious)
