"""Training batches: the same ones for the same seed, wherever a run is resumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from edgemtl.data import Batch, Sample, augment, collate
from edgemtl.tasks import Task
from edgemtl.train._recipe import Recipe

__all__ = ["batches_of", "spread", "training_batches"]


class _Steps(Dataset[Batch]):
    """Batch number i, drawn and augmented with a generator seeded by (seed, rank, i)."""

    def __init__(self, samples: Sequence[Sample], tasks: Sequence[Task], recipe: Recipe, first: int, rank: int) -> None:
        self.samples, self.tasks, self.recipe, self.first, self.rank = samples, tasks, recipe, first, rank

    def __len__(self) -> int:
        return self.recipe.steps - self.first

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng([self.recipe.seed, self.rank, self.first + index])
        picks = rng.choice(len(self.samples), self.recipe.batch, replace=len(self.samples) < self.recipe.batch)
        return collate([self._augmented(self.samples[int(pick)], rng) for pick in picks])

    def _augmented(self, sample: Sample, rng: np.random.Generator) -> Sample:
        size = sample.image.shape[:2]
        crop = (
            (min(self.recipe.crop, size[0]), min(self.recipe.crop, size[1])) if self.recipe.crop else (size[0], size[1])
        )
        return augment(sample, self.tasks, rng, crop, self.recipe.zoom)


def _single(batches: list[Batch]) -> Batch:
    return batches[0]


def training_batches(
    samples: Sequence[Sample], tasks: Sequence[Task], recipe: Recipe, first: int, rank: int
) -> Iterator[Batch]:
    """Batches from step `first` on, prepared by one process beside the training one."""
    torch.manual_seed(recipe.seed)
    loader = DataLoader(
        _Steps(samples, tasks, recipe, first, rank), batch_size=1, num_workers=1, collate_fn=_single, prefetch_factor=4
    )
    return iter(loader)


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """At most `count` samples, evenly spaced over the whole: a split may be sorted, its first images all alike."""
    total = len(samples)
    return [samples[number * total // min(count, total)] for number in range(min(count, total))]


def batches_of(samples: Sequence[Sample], size: int, limit: int | None = None) -> Iterator[Batch]:
    """Samples in order, `size` at a time; with `limit` at most so many, spread over the whole."""
    count = min(len(samples), limit or len(samples))
    for start in range(0, count, size):
        numbers = range(start, min(start + size, count))
        yield collate([samples[number * len(samples) // count] for number in numbers])
