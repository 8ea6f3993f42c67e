"""The base of the benchmarks of the strategy `masks`: the grid at a small size, learning, and a short training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from _runs import RUNS
from _trainings import scored_on_test, trained_alone

from edgemtl.data.scenes import ScenesSource
from edgemtl.models import Supernet, recalibrate
from edgemtl.nas.search.strategies.mask_learning import MASKS, MaskRun
from edgemtl.nas.search.strategies.mask_sampler import AGREEMENTS
from edgemtl.nas.search.strategies.masks import MaskDistribution, keep_above, mask_space, share_prefix
from edgemtl.spaces import Design, Space, load_space
from edgemtl.tasks import Task, delta_m
from edgemtl.train import Recipe, batches_of, evaluate, fresh_supernet

SIZE = (64, 96)
BUDGET = 0.5
"""FLOPs that all tasks together may take, of the net that keeps everything: what is shared counts once."""
Scores = dict[str, dict[str, float]]


def small_grid(tasks: Sequence[Task]) -> Space:
    """The shipped grid, float, at a small size."""
    return load_space("grid", tasks, SIZE)


def scenes(train: int, test: int = 192) -> ScenesSource:
    """Rendered rooms at that size, ready."""
    source = ScenesSource(SIZE, train=train, test=test)
    for split in ("train", "validation", "test"):
        source.prepare(split, 2)
    return source


def learning(
    space: Space, source: ScenesSource, steps: int, seed: int, folder: Path, kind: type[MaskRun] = MaskRun
) -> MaskRun:
    """A learning run within the budget, resumed where it was left."""
    masks, recipe = mask_space(space), replace(MASKS, steps=steps, sizes=(1.0,), seed=seed)
    allowed = {"": BUDGET * space.largest().cost().flops}
    return kind(space, masks, source, fresh_supernet(space, seed), recipe, allowed, folder)


def most_within(space: Space, distribution: MaskDistribution, flops: float) -> Design:
    """The design that keeps the likeliest blocks, within FLOPs."""
    low, high = -20.0, 20.0
    for _ in range(24):
        middle = (low + high) / 2
        design = space.design(distribution.space.values(keep_above(distribution, middle)))
        low, high = (low, middle) if design.cost().flops <= flops else (middle, high)
    return space.design(distribution.space.values(keep_above(distribution, high)))


def best_agreed(run: MaskRun, flops: float) -> Design:
    """Of what was learnt, agreed on to several extents, what serves validation images best with the learnt weights."""
    recalibration = [torch.from_numpy(batch.image) for batch in batches_of(run.source.split("train"), 16, 128)]

    def scores(design: Design) -> Scores:
        net = run.supernet.extract(design)
        recalibrate(net, recalibration)
        return evaluate(net, run.space.tasks, batches_of(run.source.split("validation"), 16, tasks=run.space.tasks))

    base = scores(run.space.largest())
    designs = [most_within(run.space, share_prefix(run.distribution, share), flops) for share in AGREEMENTS]
    return max(designs, key=lambda design: delta_m(run.space.tasks, scores(design), base))


def random_beliefs(distribution: MaskDistribution, rng: np.random.Generator) -> MaskDistribution:
    """Log-odds that know nothing."""
    return replace(distribution, logits=rng.logistic(size=distribution.logits.shape))


def trained(name: str, design: Design, weights: Supernet, source: ScenesSource, steps: int, seed: int) -> Scores:
    """Test scores of a design after a short training, begun with a supernet's weights; kept in `runs/`, resumable."""
    folder = RUNS / "masks" / f"{name}-{design.key}-{steps}-{seed}"
    recipe = Recipe(steps=steps, batch=24, sizes=(1.0,), largest_steps=1.0, seed=seed)
    net = trained_alone(design, weights.extract(design), source, recipe, folder)
    return scored_on_test(net, design.space.tasks, source)
