"""Stopping a candidate early that cannot keep a floor, with a bound on the chance that it would have kept it.

A candidate's images come in an order of its own, drawn evenly among all orders. A floor is a hypothesis on errors that
are summed over images, which `bets` are made against; each image's share of them follows the baseline's errors on it,
so that hard images say nothing.

A metric that is a mean over labels is one such hypothesis. The best F over thresholds is at least t if one threshold's
is, and each of these is a hypothesis, since the number of true labels is known: with N of them, M missed and F false
ones, 2 (N - M) / (2 N - M + F) >= t is (2 - t) M + t F <= 2 N (1 - t). The floor is lost where all are refuted, with no
more chance of an error than one has. A mean IoU is a family of them, one for each way in which classes share it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgemtl.nas.evaluation.bets import Bets, MeanIouBets
from edgemtl.tasks import Floor, Metric, ratio_of_counts

__all__ = [
    "WRONG_CHANCE",
    "Audit",
    "ByImage",
    "Stopped",
    "Watch",
    "WatchedFloor",
    "image_order",
    "watch_floors",
    "watchable",
]

WRONG_CHANCE = 2e-4
"""Bound on the chance that one candidate is stopped which keeps all floors."""

Array = NDArray[np.float64]
Metrics = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Stopped:
    """An early end of scoring, after so many `images` of a `total`: the `floor`, as its text, cannot be kept."""

    floor: str
    images: int
    total: int


@dataclass(frozen=True)
class ByImage:
    """Scores and counts of single images, by task and in order.

    `scores` are its metrics, empty where it has no valid label, of tasks with floors on means; `counts` (K, 3) are the
    right, false and missed labels of K classes or thresholds, of tasks with floors on ratios.
    """

    scores: Mapping[str, Sequence[Mapping[str, float]]]
    counts: Mapping[str, Sequence[NDArray[Any]]]

    @classmethod
    def joined(cls, parts: Sequence[ByImage]) -> ByImage:
        """Several parts, of the same tasks, as one."""
        scores, counts = [part.scores for part in parts], [part.counts for part in parts]
        return cls(
            {name: [each for part in scores for each in part[name]] for name in scores[0]},
            {name: [each for part in counts for each in part[name]] for name in counts[0]},
        )


class WatchedFloor(Protocol):
    """A floor with what of it is known before a candidate is scored."""

    @property
    def floor(self) -> Floor:
        """The floor."""
        ...

    def begin(self, chance: float) -> FloorAudit:
        """Begin with a candidate: its floor is lost by mistake at that chance at most."""
        ...


class FloorAudit(Protocol):
    """A floor while a candidate's images come in."""

    @property
    def floor(self) -> Floor:
        """The floor."""
        ...

    def add(self, image: int, by_image: ByImage, position: int) -> None:
        """Add an image, by its number, that stands at a position of `by_image`."""
        ...

    @property
    def lost(self) -> bool:
        """Whether the floor is lost: the bets are won, and what is expected of all images misses it too."""
        ...

    @property
    def estimate(self) -> float:
        """The metric that is expected of all images."""
        ...


@dataclass(frozen=True)
class Watch:
    """The floors by which candidates may be stopped early, over so many images."""

    floors: tuple[WatchedFloor, ...]
    images: int


def watchable(floor: Floor) -> bool:
    """Whether candidates may be stopped early by a floor: its metric is a mean over labels or a ratio of counts."""
    return floor.metric.power is not None or floor.metric.ratio is not None


def watch_floors(
    floors: Sequence[Floor], baseline: Metrics, by_image: ByImage, labels: Mapping[str, Sequence[int]]
) -> Watch | None:
    """Watch the floors on metrics that are means over labels or ratios of counts; None where there is none.

    `baseline` are the metrics of the design that relative floors refer to, `by_image` is what its images tell; `labels`
    count each image's valid ones, by task.
    """
    watched: list[WatchedFloor] = []
    for floor in floors:
        task, worst = floor.task.name, floor.worst(baseline)
        if floor.metric.power is not None:
            watched.append(_watch_mean(floor, worst, by_image.scores[task], np.array(labels[task], float)))
        elif floor.metric.ratio is not None:
            counts = np.stack(by_image.counts[task]).astype(float)
            watched += [_WatchedRatio(floor, worst, counts)] if counts[:, :, [0, 2]].any() else []
    images = max(map(len, labels.values()), default=0)
    return Watch(tuple(watched), images) if watched else None


def image_order(key: str, images: int) -> list[int]:
    """The order in which a design's images are scored: all are equally likely, and a design's is always the same."""
    return random.Random(f"image order of {key}").sample(range(images), images)


class Audit:
    """The floors of one candidate while its images come in: `broken` is the one that it cannot keep any more."""

    def __init__(self, watch: Watch) -> None:
        self._floors = [watched.begin(WRONG_CHANCE / len(watch.floors)) for watched in watch.floors]

    def add(self, images: Sequence[int], by_image: ByImage) -> None:
        """Add images by number, in the order in which they were drawn, with what they tell."""
        for audit in self._floors:
            for position, image in enumerate(images):
                audit.add(image, by_image, position)

    @property
    def broken(self) -> Floor | None:
        """The first floor that cannot be kept, but for the allowed chance; None while all can."""
        return next((audit.floor for audit in self._floors if audit.lost), None)

    def completed(self, metrics: Metrics) -> Metrics:
        """The metrics of a part of the images, those of watched floors as they are expected of all images.

        Of a mean that is the ratio of errors to the expected ones so far, times what is expected of all; of a ratio of
        counts that of the images so far.
        """
        filled = {task: dict(scores) for task, scores in metrics.items()}
        for audit in self._floors:
            filled[audit.floor.task.name][audit.floor.metric.name] = audit.estimate
        return filled


@dataclass(frozen=True)
class _WatchedMean:
    """A floor on a mean over labels: `weights` (N,) are an image's, `allowed` is the sum of errors that just keeps it.

    `expected` (N,) is how errors are taken to be distributed over images, in any scale.
    """

    floor: Floor
    weights: Array
    expected: Array
    allowed: float

    def begin(self, chance: float) -> FloorAudit:
        """See `WatchedFloor.begin`."""
        return _MeanAudit(self, chance)


class _MeanAudit:
    def __init__(self, watched: _WatchedMean, chance: float) -> None:
        self.floor, self._watched = watched.floor, watched
        self._bets = Bets(watched.expected[:, None], np.array([watched.allowed]), chance)

    def add(self, image: int, by_image: ByImage, position: int) -> None:
        """See `FloorAudit.add`; one without a valid label says nothing."""
        weight = float(self._watched.weights[image])
        if weight:
            score = by_image.scores[self.floor.task.name][position]
            error = _error(self.floor.metric, score[self.floor.metric.name])
            self._bets.add(image, np.array([weight * error]))

    @property
    def lost(self) -> bool:
        """See `FloorAudit.lost`."""
        return self._bets.won and not float(self._bets.totals[0]) <= self._watched.allowed

    @property
    def estimate(self) -> float:
        """See `FloorAudit.estimate`."""
        mean, metric = float(self._bets.totals[0]) / float(self._watched.weights.sum()), self.floor.metric
        return float((1 - mean if metric.higher_is_better else mean) ** (1 / (metric.power or 1)))


def _watch_mean(floor: Floor, worst: float, scores: Sequence[Mapping[str, float]], weights: Array) -> _WatchedMean:
    errors = np.array([_error(floor.metric, score[floor.metric.name]) if score else 0.0 for score in scores]) * weights
    return _WatchedMean(floor, weights, _shares(errors, weights), _error(floor.metric, worst) * float(weights.sum()))


def _shares(errors: Array, weights: Array) -> Array:
    """How errors are taken to be distributed over images (N, …): half as the baseline's, half as labels are."""
    mean = errors.sum(0) / weights.sum(0)
    with np.errstate(invalid="ignore"):
        return np.where((mean > 0) & np.isfinite(mean), (errors + mean * weights) / 2, weights)


def _error(metric: Metric, value: float) -> float:
    """How far a mean's value is from the best: what is missing from 1 where higher is better, else its power."""
    if not math.isfinite(value):
        return math.inf
    power = value ** (metric.power or 1)
    return max(0.0, 1 - power) if metric.higher_is_better else power


@dataclass(frozen=True)
class _WatchedRatio:
    """A floor on a ratio of counts, of which `worst` just keeps it; `counts` (N, K, 3) are the baseline's."""

    floor: Floor
    worst: float
    counts: Array

    def begin(self, chance: float) -> FloorAudit:
        """See `WatchedFloor.begin`."""
        return (_MeanIouAudit if self.floor.metric.ratio == "mean_iou" else _BestFAudit)(self, chance)

    @property
    def labels(self) -> Array:
        """True labels of each image and class, or threshold (N, K)."""
        return self.counts[:, :, 0] + self.counts[:, :, 2]


class _RatioAudit:
    """The common part of floors on ratios: the counts so far, whose ratio is what is expected of all images."""

    def __init__(self, watched: _WatchedRatio) -> None:
        self.floor, self._worst, self._counts = watched.floor, watched.worst, np.zeros(watched.counts.shape[1:])

    @property
    def estimate(self) -> float:
        """See `FloorAudit.estimate`."""
        return ratio_of_counts(self.floor.metric, self._counts)

    def _count(self, by_image: ByImage, position: int) -> Array:
        counts = by_image.counts[self.floor.task.name][position].astype(float)
        self._counts = self._counts + counts
        return counts


class _BestFAudit(_RatioAudit):
    def __init__(self, watched: _WatchedRatio, chance: float) -> None:
        super().__init__(watched)
        labels = watched.labels[:, 0]  # the same at every threshold
        errors = self._errors(watched.counts)
        allowed = np.full(errors.shape[1], 2 * float(labels.sum()) * (1 - self._worst))
        self._bets = Bets(_shares(errors, np.repeat(labels[:, None], errors.shape[1], 1)), allowed, chance)

    def add(self, image: int, by_image: ByImage, position: int) -> None:
        """See `FloorAudit.add`."""
        self._bets.add(image, self._errors(self._count(by_image, position)))

    @property
    def lost(self) -> bool:
        """See `FloorAudit.lost`."""
        return self._bets.won and self.estimate < self._worst

    def _errors(self, counts: Array) -> Array:
        """Errors (…, K) of counts (…, K, 3): what is missed and what is false, weighed as the floor's F does."""
        least = max(self._worst, 0.0)
        return np.asarray((2 - least) * counts[..., 2] + least * counts[..., 1])


class _MeanIouAudit(_RatioAudit):
    def __init__(self, watched: _WatchedRatio, chance: float) -> None:
        super().__init__(watched)
        labels, (right, false, missed) = watched.labels.sum(0), watched.counts.sum(0).T
        each, iou = np.maximum(labels, 1), right / np.maximum(right + false + missed, 1)
        errors = ((watched.counts[..., 2] + iou * watched.counts[..., 1]) / each)[:, labels > 0].sum(1)
        expected = _shares(errors, (watched.labels / each).sum(1))
        self._bets = MeanIouBets(expected, labels, self._worst, chance)

    def add(self, image: int, by_image: ByImage, position: int) -> None:
        """See `FloorAudit.add`."""
        _, false, missed = self._count(by_image, position).T
        self._bets.add(image, false, missed)

    @property
    def lost(self) -> bool:
        """See `FloorAudit.lost`."""
        return self._bets.won and self.estimate < self._worst
