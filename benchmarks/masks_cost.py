"""Seconds of a learning step of the strategy `masks` with one, two and four tasks, its heads left out of the clock.

Every step runs as many passes of the trunk whatever the number of tasks; only decoders and losses are one a task. They
are timed alone on the features of the same masks, interleaved with the steps, and taken off. The shipped grid, float,
at 64x96.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from _common import Outcome, Row, main, say
from _masks import learning, scenes, small_grid

from edgemtl.data import Batch
from edgemtl.models import MultiTaskNet
from edgemtl.models.nets.net import run_blocks
from edgemtl.nas.search.strategies.mask_learning import ARCHITECTURES, MaskRun
from edgemtl.nas.search.strategies.masks import draw, probabilities
from edgemtl.tasks import map_outputs
from edgemtl.train import task_loss, training_batches

COUNTS = (1, 2, 4)
ROUNDS, QUICK_ROUNDS = 40, 6
WARM_UP = 2


def heads_s(run: MaskRun, net: MultiTaskNet, batch: Batch) -> float:
    """Seconds that the decoders and losses of one step take, forward and backward, on features that are there."""
    image = torch.from_numpy(batch.image).to(memory_format=torch.channels_last)
    slots = run.space.family.blocks(run.space.spec, run.space.tasks)
    own = [step for step in net.wiring if step.name in slots and slots[step.name].task]
    trunk = [step for step in net.wiring if step not in own]
    with torch.no_grad():
        features = run_blocks(net.blocks, trunk, image)
    labels = {t.name: [torch.from_numpy(part[t.name]) for part in (batch.targets, batch.masks)] for t in net.tasks}
    start = time.perf_counter()
    with torch.autocast(image.device.type, torch.bfloat16, enabled=run.bf16):
        values = {name: value.detach().requires_grad_() for name, value in features.items()}
        for step in own:
            values[step.name] = net.blocks[step.parameters](*(values[source] for source in step.inputs))
    outputs = map_outputs(values.__getitem__, net.outputs)
    torch.stack([task_loss(task, outputs[task.name], *labels[task.name]) for task in net.tasks]).sum().backward()  # type: ignore[no-untyped-call]
    return time.perf_counter() - start


def run(options: argparse.Namespace) -> Outcome:
    """Steps with each number of tasks in turns; the largest relative difference of what is not the heads'."""
    source = scenes(256)
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    steps: dict[int, list[float]] = {count: [] for count in COUNTS}
    heads: dict[int, list[float]] = {count: [] for count in COUNTS}
    with tempfile.TemporaryDirectory() as scratch:
        runs = {c: learning(small_grid(source.tasks[:c]), source, 10_000, 0, Path(scratch) / str(c)) for c in COUNTS}
        feeds = {c: training_batches(source.split("train"), source.tasks[:c], runs[c].recipe, 0, 0) for c in COUNTS}
        for number in range(rounds):
            for count in COUNTS if number % 2 else COUNTS[::-1]:
                each, batch = runs[count], next(feeds[count])
                chances = probabilities(each.logits.detach().numpy(), each.masks.present)
                kept = draw(chances, ARCHITECTURES, np.random.default_rng([each.recipe.seed, number]))
                start = time.perf_counter()
                each.one_step(number, batch)
                whole = time.perf_counter() - start
                nets = [each.supernet.extract(each.masks.values(mask)).train() for mask in kept]
                if number >= WARM_UP:
                    steps[count].append(whole)
                    heads[count].append(sum(heads_s(each, net, batch) for net in nets))
        for feed in feeds.values():
            feed.close()  # type: ignore[attr-defined]
    trunk = {c: statistics.median(a - b for a, b in zip(steps[c], heads[c], strict=True)) for c in COUNTS}
    say(f"seconds of a step less its heads, by tasks: {trunk}")
    rows = [Row("largest_difference_between_numbers_of_tasks", 100 * (max(trunk.values()) / min(trunk.values()) - 1),
                "%", 15, 5)]  # fmt: skip
    rows += [Row(f"step_with_{count}_tasks", statistics.median(steps[count]), "s") for count in COUNTS]
    return Outcome(rows, {"step_s": steps, "heads_s": heads, "trunk_s": trunk})


if __name__ == "__main__":
    main(run, __doc__)
