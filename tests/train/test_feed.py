from __future__ import annotations

from itertools import islice

import numpy as np
from toys import TRAINED, Toys

from edgemtl.data import Batch
from edgemtl.train import Recipe, batches_of
from edgemtl.train.feed import training_batches

RECIPE = Recipe(steps=5, batch=3, sizes=(1.0,), seed=4)


def batches(recipe: Recipe, first: int = 0, rank: int = 0) -> list[Batch]:
    return list(islice(training_batches(Toys().split("train"), TRAINED, recipe, first, rank), 5))


def same(one: Batch, other: Batch) -> bool:
    return np.array_equal(one.image, other.image) and all(
        np.array_equal(one.targets[name], other.targets[name]) and np.array_equal(one.masks[name], other.masks[name])
        for name in one.targets
    )


def test_a_resumed_run_gets_the_batches_that_it_missed() -> None:
    whole, rest = batches(RECIPE), batches(RECIPE, first=2)
    assert (len(whole), len(rest)) == (5, 3)
    assert all(same(one, other) for one, other in zip(whole[2:], rest, strict=True))


def test_steps_processes_and_seeds_get_batches_of_their_own() -> None:
    whole = batches(RECIPE)
    assert not any(same(whole[0], other) for other in whole[1:])
    assert not same(whole[0], batches(RECIPE, rank=1)[0])
    assert not same(whole[0], batches(Recipe(steps=1, batch=3, sizes=(1.0,), seed=5))[0])


def test_images_grow_and_every_size_gets_the_same_computation() -> None:
    assert batches(RECIPE)[0].image.shape == (3, 3, 32, 32)
    growing = Recipe(steps=5, batch=2, sizes=(1.0, 2.0))
    assert [batch.image.shape[-1] for batch in batches(growing)] == [32, 32, 32, 32, 64]
    assert batches(growing)[-1].targets["semseg"].shape == (2, 64, 64)
    steps = [Recipe(steps=1000).size_at(step) for step in range(1000)]
    assert steps == sorted(steps)
    cost = {size: steps.count(size) * size**2 for size in Recipe().sizes}
    assert max(cost.values()) < 1.02 * min(cost.values())


def test_samples_come_in_order_up_to_a_limit() -> None:
    samples = Toys().split("test")
    found = list(batches_of(samples, 3, 7, tasks=TRAINED))
    assert [len(batch.image) for batch in found] == [3, 3, 1]
    assert all(
        np.array_equal(target, samples[index].targets["depth"])
        for index, target in enumerate(target for batch in found for target in batch.targets["depth"])
    )
    assert sum(len(batch.image) for batch in batches_of(samples, 16)) == len(samples)
