"""Masks found for each task against random masks of the same FLOPs, and against one mask searched for all tasks.

For each of three seeds masks are learnt on `scenes` at 64x96, for each task its own and, in a run of its own whose
log-odds are tied, one for all. Every net takes half the FLOPs of the one that keeps everything at most, random masks as
the found ones, by dropping first what is dearest for what it is believed to be worth. All, 20 random ones among them,
are then trained from scratch for as many steps.
Scores are of test images, which decide nothing; delta_m is against the net that keeps everything, trained alike.
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
import torch
from _common import Outcome, Row, main, say
from _masks import BUDGET, learning, most_within, random_beliefs, scenes, small_grid, trained
from _runs import ROOT

from edgemtl.data import ScenesSource
from edgemtl.nas import Design, Space
from edgemtl.nas._mask_learning import MaskRun
from edgemtl.nas._masks import Beliefs
from edgemtl.tasks import delta_m
from edgemtl.train import training_batches

SEEDS = (0, 1, 2)
LEARNING_STEPS, TRAINING_STEPS, RANDOM = 600, 80, 20
QUICK_LEARNING_STEPS, QUICK_TRAINING_STEPS, QUICK_RANDOM = 40, 15, 4
IMAGES = 2048


def one_for_all(run: MaskRun) -> Beliefs:
    """What is learnt where all tasks must keep the same: after every step they believe the mean."""
    feed = training_batches(run.source.split("train"), run.space.tasks, run.recipe, run.step, 0)
    for batch in feed:
        run.one_step(batch)
        with torch.no_grad():
            run.logits.copy_(run.logits.mean(0, keepdim=True).expand_as(run.logits))
    run.checkpoint()
    return run.beliefs


def found(space: Space, source: ScenesSource, seed: int, steps: int) -> tuple[Beliefs, dict[str, Design]]:
    """What each task believes, the design with a mask for each task, and the one with one for all."""
    flops = BUDGET * space.largest().cost().flops
    own, shared = (
        learning(space, source, steps, seed, ROOT / "runs" / "masks" / f"learnt-{name}-{steps}-{seed}")
        for name in ("own", "shared")
    )
    say(f"learning masks, seed {seed}")
    beliefs = own.learn()
    designs = {"own": most_within(space, beliefs, flops), "shared": most_within(space, one_for_all(shared), flops)}
    return beliefs, designs


def run(options: argparse.Namespace) -> Outcome:
    """Mean over the seeds of the found masks' lead over the best random ones."""
    quick = options.quick
    source = scenes(IMAGES)
    space = small_grid(source.tasks)
    steps = QUICK_TRAINING_STEPS if quick else TRAINING_STEPS
    leads, shared_leads, raw = [], [], {}
    for seed in SEEDS[:1] if quick else SEEDS:
        beliefs, designs = found(space, source, seed, QUICK_LEARNING_STEPS if quick else LEARNING_STEPS)
        rng, flops = np.random.default_rng(seed), BUDGET * space.largest().cost().flops
        for number in range(QUICK_RANDOM if quick else RANDOM):
            designs[f"random{number}"] = most_within(space, random_beliefs(beliefs, rng), flops)
        base = trained("whole", space.largest(), source, steps, seed)
        deltas = {}
        for name, design in designs.items():
            deltas[name] = 100 * delta_m(space.tasks, trained(name, design, source, steps, seed), base)
            say(f"seed {seed}, {name}: {design.cost().flops / 1e6:.0f} MFLOPs, delta_m {deltas[name]:+.2f} %")
        best_random = max(value for name, value in deltas.items() if name.startswith("random"))
        leads.append(deltas["own"] - best_random)
        shared_leads.append(deltas["own"] - deltas["shared"])
        raw[f"seed{seed}"] = {"delta_m": deltas, "flops": {n: d.cost().flops for n, d in designs.items()}}
    rows = [
        Row("lead_over_the_best_random_masks", statistics.mean(leads), "points", 0.0, None, False),
        Row("lead_over_one_mask_for_all_tasks", statistics.mean(shared_leads), "points", None, 0.0, False),
    ]
    return Outcome(rows, {"leads": leads, "leads_over_shared": shared_leads, **raw})


if __name__ == "__main__":
    main(run, __doc__)
