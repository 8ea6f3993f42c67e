"""Training batches: the same ones for the same seed, wherever a run is resumed."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np

from edgemtl.data import Batch, Sample, augment, collate
from edgemtl.tasks import Task
from edgemtl.train.recipe import Recipe

__all__ = ["batches_of", "subsample", "training_batches"]

_AHEAD = 4
_STRIDE = 32


def _batch(samples: Sequence[Sample], tasks: Sequence[Task], recipe: Recipe, rank: int, step: int) -> Batch:
    """The batch of one step, drawn and augmented with a generator seeded by (seed, rank, step)."""
    rng = np.random.default_rng([recipe.seed, rank, step])
    picks = rng.choice(len(samples), recipe.batch, replace=len(samples) < recipe.batch)
    drawn = [_augmented(samples[int(pick)], tasks, recipe.size_at(step), recipe.zoom, rng) for pick in picks]
    return collate(drawn, tasks)


def _augmented(
    sample: Sample, tasks: Sequence[Task], size: float, zoom: tuple[float, float], rng: np.random.Generator
) -> Sample:
    """A window of `size` times the image's sides, rounded to the 32 pixels that the nets' strides divide."""
    height, width = (max(_STRIDE, _STRIDE * round(size * side / _STRIDE)) for side in sample.image.shape[:2])
    return augment(sample, tasks, rng, (height, width), (size * zoom[0], size * zoom[1]))


def training_batches(
    samples: Sequence[Sample], tasks: Sequence[Task], recipe: Recipe, first: int, rank: int
) -> Iterator[Batch]:
    """Batches from step `first` on, prefetched in a thread.

    A thread, not a process: forking after a runtime has started its own threads can end both.
    """
    pool = ThreadPoolExecutor(1)
    steps = iter(range(first, recipe.steps))
    try:
        ahead = deque(pool.submit(_batch, samples, tasks, recipe, rank, step) for step in islice(steps, _AHEAD))
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(pool.submit(_batch, samples, tasks, recipe, rank, step) for step in islice(steps, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def subsample(samples: Sequence[Sample], count: int) -> list[Sample]:
    """At most `count` samples, evenly spaced over the whole: a split may be sorted, its first images all alike."""
    total = len(samples)
    return [samples[number * total // min(count, total)] for number in range(min(count, total))]


def batches_of(
    samples: Sequence[Sample], size: int, limit: int | None = None, *, tasks: Sequence[Task] = ()
) -> Iterator[Batch]:
    """Samples in order, `size` at a time; with `limit` at most so many, spread over the whole."""
    count = min(len(samples), limit or len(samples))
    for start in range(0, count, size):
        numbers = range(start, min(start + size, count))
        yield collate([samples[number * len(samples) // count] for number in numbers], tasks)
