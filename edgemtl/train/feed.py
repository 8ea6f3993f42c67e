"""Training batches: the same ones for the same seed, wherever a run is resumed and however many threads make them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from edgemtl.data import Batch, Sample, augment, collate
from edgemtl.tasks import Task
from edgemtl.train.recipe import Recipe

__all__ = ["batches_of", "subsample", "training_batches"]

_THREADS = 8
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
    samples: Sequence[Sample], tasks: Sequence[Task], recipe: Recipe, first: int, rank: int, *, pinned: bool = False
) -> Iterator[Batch]:
    """Batches from step `first` on, prefetched by as many threads as torch may use, `pinned` for copies to a GPU.

    Threads, not processes: forking after a runtime has started its own threads can end both.
    """
    threads = min(_THREADS, torch.get_num_threads())
    pool = ThreadPoolExecutor(threads)

    def made(step: int) -> Batch:
        batch = _batch(samples, tasks, recipe, rank, step)
        return _pinned(batch) if pinned else batch

    steps = iter(range(first, recipe.steps))
    try:
        ahead = deque(pool.submit(made, step) for step in islice(steps, 2 * threads + 2))
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(pool.submit(made, step) for step in islice(steps, 1))
    finally:
        pool.shutdown(cancel_futures=True)


def _pinned(batch: Batch) -> Batch:
    """The batch in memory that a GPU reads by itself."""

    def pin(labels: Any) -> Any:
        if isinstance(labels, tuple):
            return tuple(pin(each) for each in labels)
        return torch.from_numpy(labels).pin_memory().numpy()

    targets = {name: pin(labels) for name, labels in batch.targets.items()}
    masks = {name: pin(mask) for name, mask in batch.masks.items()}
    return replace(batch, image=pin(batch.image), targets=targets, masks=masks)


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
