"""Masks found for each task against random masks of the same FLOPs, and against one mask searched for all tasks.

For each of three seeds masks are learnt on `scenes` at 64x96, for each task its own and, in a run of its own whose
log-odds are tied, one for all. Of the former those are taken whose first part, none to all, tasks agree on, so that it
is computed once: what scores best on validation images with the learnt weights, untrained. Every net takes half the
FLOPs of the one that keeps everything at most, random masks as the found ones, by dropping first what costs most for
what it is expected to bring. All, 20 random ones among them, begin with the weights that were learnt with the found
masks (one mask for all with its own) and are trained for as many steps. Scores are of test images, which decide
nothing; delta_m is against the net that keeps everything, trained alike.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from _common import Outcome, Row, main, say
from _figures import mean_interval
from _masks import BUDGET, best_agreed, learning, most_within, random_beliefs, scenes, small_grid, trained
from _runs import RUNS

from edgemtl.data import Batch
from edgemtl.data.scenes import ScenesSource
from edgemtl.nas.search.strategies.mask_learning import MaskRun
from edgemtl.spaces import Space
from edgemtl.tasks import delta_m

SEEDS = (0, 1, 2)
LEARNING_STEPS, TRAINING_STEPS, RANDOM = 600, 60, 20
QUICK_LEARNING_STEPS, QUICK_TRAINING_STEPS, QUICK_RANDOM = 40, 15, 4
IMAGES = 2048


class OneForAll(MaskRun):
    """A learning run in which all tasks must keep the same: after every step they believe the mean."""

    def one_step(self, step: int, batch: Batch) -> None:
        super().one_step(step, batch)
        with torch.no_grad():
            self.logits.copy_(self.logits.mean(0, keepdim=True).expand_as(self.logits))


def found(space: Space, source: ScenesSource, seed: int, steps: int) -> tuple[MaskRun, MaskRun]:
    """Learning runs that are done: with a mask for each task, and with one for all."""
    own, shared = (
        learning(space, source, steps, seed, RUNS / "masks" / f"learnt-{name}-{steps}-{seed}", kind)
        for name, kind in (("own", MaskRun), ("shared", OneForAll))
    )
    say(f"learning masks, seed {seed}")
    own.learn()
    shared.learn()
    return own, shared


def run(options: argparse.Namespace) -> Outcome:
    """Mean over the seeds of the found masks' lead over the best random ones."""
    quick = options.quick
    source = scenes(IMAGES)
    space = small_grid(source.tasks)
    steps = QUICK_TRAINING_STEPS if quick else TRAINING_STEPS
    leads, shared_leads, raw = [], [], {}
    for seed in SEEDS[:1] if quick else SEEDS:
        own, shared = found(space, source, seed, QUICK_LEARNING_STEPS if quick else LEARNING_STEPS)
        flops, rng = BUDGET * space.largest().cost().flops, np.random.default_rng(seed)
        nets = {
            "own": (best_agreed(own, flops), own.supernet),
            "shared": (most_within(space, shared.distribution, flops), shared.supernet),
        }
        for number in range(QUICK_RANDOM if quick else RANDOM):
            nets[f"random{number}"] = most_within(space, random_beliefs(own.distribution, rng), flops), own.supernet
        base = trained("whole", space.largest(), own.supernet, source, steps, seed)
        deltas = {}
        for name, (design, weights) in nets.items():
            deltas[name] = 100 * delta_m(space.tasks, trained(name, design, weights, source, steps, seed), base)
            say(f"seed {seed}, {name}: {design.cost().flops / 1e6:.0f} MFLOPs, delta_m {deltas[name]:+.2f} %")
        best_random = max(value for name, value in deltas.items() if name.startswith("random"))
        leads.append(deltas["own"] - best_random)
        shared_leads.append(deltas["own"] - deltas["shared"])
        raw[f"seed{seed}"] = {"delta_m": deltas, "flops": {n: d.cost().flops for n, (d, _) in nets.items()}}
    over_random, over_shared = mean_interval(leads), mean_interval(shared_leads)
    rows = [
        Row("lead_over_the_best_random_masks", over_random.mean, "points", 0.0, None, False),
        Row("lead_over_one_mask_for_all_tasks", over_shared.mean, "points", None, 0.0, False),
    ]
    intervals = {"random": over_random, "shared": over_shared}
    return Outcome(rows, {"leads": leads, "leads_over_shared": shared_leads, "intervals": intervals, **raw})


if __name__ == "__main__":
    main(run, __doc__)
