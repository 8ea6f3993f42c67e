"""Stopping a candidate early that cannot keep a floor, with a bound on the chance that it would have kept it.

A candidate's images come in an order of its own, drawn evenly among all orders. A floor says that the candidate's
error, summed over all images, is at most some total. If that holds, then an image that is drawn next has at most its
share of what is left of the total, on average. So a gambler who bets on more does not win in the mean: wealth that is
multiplied by `1 + stake * (error - share)` for each image is a nonnegative supermartingale, and exceeds 1/p at any time
with a chance of p at most (Ville's inequality). This is betting on a mean when drawing without replacement
(Waudby-Smith and Ramdas 2023; ALPHA of Stark 2023, for the audit of elections). It needs errors that are not below
zero, and neither an upper bound nor a distribution. Ours: an image's share follows the baseline's error on it, so that
hard images say nothing; and where the errors so far exceed the total, the floor is lost for certain.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemtl.tasks import Floor, Metric

__all__ = [
    "WRONG_CHANCE",
    "Audit",
    "Bets",
    "ImageScores",
    "Stopped",
    "Watch",
    "WatchedFloor",
    "image_order",
    "watch_floors",
]

WRONG_CHANCE = 2e-4
"""Bound on the chance that one candidate is stopped which keeps all floors."""
_ROUNDING, _MOST_LOG_WEALTH = 1e-9, 500.0
_STAKES = (1 / 16, 1 / 4, 1.0)
"""Shares of the largest stake; the wealth is the mean over gamblers with one each."""

Array = NDArray[np.float64]
Metrics = Mapping[str, Mapping[str, float]]
ImageScores = Mapping[str, Sequence[Mapping[str, float]]]
"""Metrics of single images, by task and in order: empty where an image has no valid label."""


@dataclass(frozen=True)
class Stopped:
    """An early end of scoring, after so many `images` of a `total`: the `floor`, as its text, cannot be kept."""

    floor: str
    images: int
    total: int


@dataclass(frozen=True)
class WatchedFloor:
    """A floor with what of it is known before a candidate is scored, for each of N validation images.

    `weights` (N,) are its numbers of valid labels, `expected` (N,) is how errors are taken to be distributed over them,
    in any scale; `allowed` is the sum of errors with which the floor is just kept.
    """

    floor: Floor
    weights: Array
    expected: Array
    allowed: float


@dataclass(frozen=True)
class Watch:
    """The floors by which candidates may be stopped early, over so many images."""

    floors: tuple[WatchedFloor, ...]
    images: int


def watch_floors(
    floors: Sequence[Floor], baseline: Metrics, by_image: ImageScores, labels: Mapping[str, Sequence[int]]
) -> Watch | None:
    """Watch the floors on metrics that are means over labels; None where there is none.

    `baseline` are the metrics of the design that relative floors refer to, `by_image` the same of each image; `labels`
    count each image's valid ones, by task.
    """
    watched = []
    for floor in floors:
        if floor.metric.power is None:
            continue
        weights = np.array(labels[floor.task.name], float)
        errors = _errors(floor.metric, by_image[floor.task.name], weights)
        mean = float(errors.sum() / weights.sum())
        expected = (errors + mean * weights) / 2 if 0 < mean < math.inf else weights
        allowed = _error(floor.metric, floor.worst(baseline)) * float(weights.sum())
        watched.append(WatchedFloor(floor, weights, expected, allowed))
    return Watch(tuple(watched), len(watched[0].weights)) if watched else None


def image_order(key: str, images: int) -> list[int]:
    """The order in which a design's images are scored: all are equally likely, and a design's is always the same."""
    return random.Random(f"image order of {key}").sample(range(images), images)


class Audit:
    """The floors of one candidate while its images come in: `broken` is the one that it cannot keep any more."""

    def __init__(self, watch: Watch) -> None:
        chance = WRONG_CHANCE / len(watch.floors)
        self._bets = [Bets(watched, chance) for watched in watch.floors]

    def add(self, images: Sequence[int], scores: ImageScores) -> None:
        """Add images by number, in the order in which they were drawn, with their scores."""
        for bets in self._bets:
            for image, score in zip(images, scores[bets.floor.task.name], strict=True):
                bets.add(image, score)

    @property
    def broken(self) -> Floor | None:
        """The first floor that cannot be kept, but for the allowed chance; None while all can."""
        return next((bets.floor for bets in self._bets if bets.lost), None)

    def completed(self, metrics: Metrics) -> Metrics:
        """The metrics of a part of the images, those of watched floors as they are expected of all images.

        That is the ratio of errors to the expected ones so far, times what is expected of all.
        """
        filled = {task: dict(scores) for task, scores in metrics.items()}
        for bets in self._bets:
            filled[bets.floor.task.name][bets.floor.metric.name] = bets.estimate
        return filled


class Bets:
    """Bets against one floor, which are won at a `chance` of that at most where the floor is kept."""

    def __init__(self, watched: WatchedFloor, chance: float) -> None:
        self.floor = watched.floor
        self._watched, self._needed, self._won = watched, 1 / chance, False
        self._unseen, self._seen = watched.expected.copy(), 0.0
        self._log_wealth = np.zeros(len(_STAKES))

    def add(self, image: int, score: Mapping[str, float]) -> None:
        """Bet on an image, by its number and its scores (none where it has no valid label)."""
        share, weight = float(self._watched.expected[image]), float(self._watched.weights[image])
        if not weight:
            return
        error = weight * _error(self.floor.metric, score[self.floor.metric.name])
        left = self._watched.allowed - self._seen
        if left > 0 and math.isfinite(error):
            per_share, largest = left / float(self._unseen.sum()), float(self._unseen.max())
            gain = (error - per_share * share) / (per_share * largest)
            with np.errstate(divide="ignore"):  # a gambler who staked all may lose all
                self._log_wealth += np.log(np.maximum(0.0, 1 + np.array(_STAKES) * gain))
        self._seen += error
        self._unseen[image] = 0.0
        self._won |= self.wealth >= self._needed

    @property
    def wealth(self) -> float:
        """The gamblers' mean wealth, 1 before the first bet; infinite where errors exceed those that are allowed."""
        if not self._seen <= self._watched.allowed * (1 + _ROUNDING) + _ROUNDING:
            return math.inf
        return float(np.exp(np.minimum(self._log_wealth, _MOST_LOG_WEALTH)).mean())

    @property
    def lost(self) -> bool:
        """Whether the floor is lost: the bets are won, and what is expected of all images misses it too."""
        return self._won and not self._total <= self._watched.allowed

    @property
    def _total(self) -> float:
        """Expected sum of errors over all images."""
        expected = self._watched.expected
        return self._seen * float(expected.sum() / max(float((expected - self._unseen).sum()), 1e-300))

    @property
    def estimate(self) -> float:
        """Expected metric over all images."""
        mean, metric = self._total / float(self._watched.weights.sum()), self.floor.metric
        return float((1 - mean if metric.higher_is_better else mean) ** (1 / (metric.power or 1)))


def _error(metric: Metric, value: float) -> float:
    """How far a mean's value is from the best: what is missing from 1 where higher is better, else its power."""
    if not math.isfinite(value):
        return math.inf
    power = value ** (metric.power or 1)
    return max(0.0, 1 - power) if metric.higher_is_better else power


def _errors(metric: Metric, scores: Sequence[Mapping[str, float]], weights: Array) -> Array:
    values = [_error(metric, score[metric.name]) if score else 0.0 for score in scores]
    return np.array(values) * weights
