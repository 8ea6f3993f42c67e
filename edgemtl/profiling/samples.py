"""Latency samples, and the statistics that they support.

A percentile is shown only where enough samples lie beyond it: n * (1 - q) >= 5, so n >= 10 for p50, 50 for p90 and
500 for p99. The chance that the true quantile is larger than every sample drawn is q**n <= exp(-n * (1 - q)), here
below exp(-5) = 0.7 %: a shown percentile is inside the data with the 99 % confidence that MLPerf's loadgen asks for
before it accepts a run. Fewer samples would print the maximum under another name. Nothing is clipped: the tail is
what a deadline meets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgemtl.results import FigureKind
from edgemtl.schema import Name, Strict, Text

__all__ = ["LatencyBlock", "Ratio", "Samples", "percentile", "percentile_interval", "ratios", "samples_needed"]

TAIL_SAMPLES = 5
Milliseconds = Annotated[float, Field(ge=0, le=1e9)]
Interval = tuple[Milliseconds, Milliseconds]


def samples_needed(q: float) -> int:
    """The fewest samples for which the quantile `q` (0 < q < 1) is shown: 5 / (1 - q), rounded up."""
    return math.ceil(round(TAIL_SAMPLES / (1 - q), 9))


def percentile(samples_ms: Sequence[float], q: float) -> float | None:
    """The quantile `q` (0 < q < 1), interpolated linearly, or None for fewer than `samples_needed(q)` samples.

    >>> percentile([float(ms) for ms in range(1, 101)], 0.5)
    50.5
    >>> percentile([1.0, 2.0, 3.0], 0.99) is None
    True
    """
    if len(samples_ms) < samples_needed(q):
        return None
    ordered = sorted(samples_ms)
    position = q * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def percentile_interval(samples_ms: Sequence[float], q: float, confidence: float = 0.95) -> Interval | None:
    """A distribution-free interval for the quantile `q`: a pair of order statistics that covers it.

    The count of samples below the true quantile is Binomial(n, q); the interval between the order statistics at its
    two tails covers the quantile with at least `confidence` where samples are independent. None where the
    percentile is hidden or the upper end lies beyond the largest sample.
    """
    n = len(samples_ms)
    if n < samples_needed(q):
        return None
    cumulative = np.cumsum(_binomial(n, q))
    tail = (1 - confidence) / 2
    low = int(np.searchsorted(cumulative, tail, side="right"))
    high = int(np.searchsorted(cumulative, 1 - tail, side="left")) + 1
    if low < 1 or high > n:
        return None
    ordered = sorted(samples_ms)
    return ordered[low - 1], ordered[high - 1]


def _binomial(n: int, q: float) -> NDArray[np.float64]:
    """Probabilities of 0..n successes, by logarithms so that large n neither over- nor underflows."""
    logs = [
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(q) + (n - k) * math.log1p(-q)
        for k in range(n + 1)
    ]
    probabilities: NDArray[np.float64] = np.exp(np.asarray(logs))
    return probabilities


class LatencyBlock(Strict):
    """Latency report of one timed call; times are in ms of wall clock, `cov` is deviation over mean.

    A percentile is None where n is too small for it (`samples_needed`). `intervals_ms` holds each shown
    percentile's 95 % interval where the samples bound it. `includes` says what the timed call contains;
    `samples_ms` are all samples, in the order they were drawn.
    """

    n: Annotated[int, Field(ge=1)]
    warmup: Annotated[int, Field(ge=0)]
    batch: Annotated[int, Field(ge=1)]
    threads: Annotated[int, Field(ge=0)]
    includes: Text
    min_ms: Milliseconds
    mean_ms: Milliseconds
    p50_ms: Milliseconds | None
    p90_ms: Milliseconds | None
    p99_ms: Milliseconds | None
    cov: Annotated[float, Field(ge=0)]
    intervals_ms: dict[Literal["p50", "p90", "p99"], Interval] = Field(default_factory=dict)
    samples_ms: Annotated[tuple[Milliseconds, ...], Field(max_length=1_000_000)]
    kind: FigureKind = "measured"
    device: Name
    runtime: Name

    @property
    def typical_ms(self) -> float:
        """The median where it is shown, else the mean: the one figure to quote."""
        return self.mean_ms if self.p50_ms is None else self.p50_ms


@dataclass(frozen=True)
class Samples:
    """Every sample of one call (ms, in the order drawn), after `warmup` calls that were not timed.

    `visit` is how many samples were drawn in a row before another call had its turn (all of them outside a
    comparison).

    >>> Samples((1.0, 1.2, 5.0), warmup=20, visit=3).median_ms
    1.2
    """

    samples_ms: tuple[float, ...]
    warmup: int
    visit: int

    @property
    def mean_ms(self) -> float:
        """Arithmetic mean."""
        return math.fsum(self.samples_ms) / len(self.samples_ms)

    @property
    def median_ms(self) -> float:
        """The middle sample, however few there are; for ratios, not for reports."""
        return float(np.median(self.samples_ms))

    @property
    def cov(self) -> float:
        """Coefficient of variation: sample deviation over mean."""
        n = len(self.samples_ms)
        return float(np.std(self.samples_ms, ddof=1)) / self.mean_ms if n > 1 and self.mean_ms > 0 else 0.0

    def block(
        self, *, device: str, runtime: str, threads: int, includes: str, batch: int = 1, kind: FigureKind = "measured"
    ) -> LatencyBlock:
        """The samples as a report of latency."""
        shown = {f"p{round(100 * q)}": q for q in (0.5, 0.9, 0.99)}
        intervals = {name: percentile_interval(self.samples_ms, q) for name, q in shown.items()}
        return LatencyBlock.model_validate(
            {
                "n": len(self.samples_ms),
                "warmup": self.warmup,
                "batch": batch,
                "threads": threads,
                "includes": includes,
                "min_ms": min(self.samples_ms),
                "mean_ms": self.mean_ms,
                **{f"{name}_ms": percentile(self.samples_ms, q) for name, q in shown.items()},
                "cov": self.cov,
                "intervals_ms": {name: interval for name, interval in intervals.items() if interval},
                "samples_ms": self.samples_ms,
                "device": device,
                "runtime": runtime,
                "kind": kind,
            }
        )


@dataclass(frozen=True)
class Ratio:
    """A ratio of medians with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def ratios(samples: Mapping[str, Samples], reference: str, *, draws: int = 500, seed: int = 0) -> dict[str, Ratio]:
    """Each call's median over the reference's, from one interleaved comparison (`reference` itself is left out).

    The interval resamples whole visits, since neighbours in time share what disturbed them: a bootstrap over single
    samples would look surer than it is.
    """
    rng = np.random.default_rng(seed)
    medians = {name: _bootstrap_medians(each, draws, rng) for name, each in samples.items()}
    ratio_of = {}
    for name, each in samples.items():
        if name != reference:
            low, high = np.quantile(medians[name] / medians[reference], (0.025, 0.975))
            ratio_of[name] = Ratio(each.median_ms / samples[reference].median_ms, float(low), float(high))
    return ratio_of


def _bootstrap_medians(samples: Samples, draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    whole = len(samples.samples_ms) // samples.visit * samples.visit
    visits = np.asarray(samples.samples_ms[:whole]).reshape(-1, samples.visit)
    picks = rng.integers(len(visits), size=(draws, len(visits)))
    return np.asarray(np.median(visits[picks].reshape(draws, -1), axis=1))
