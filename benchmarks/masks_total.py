"""The cost of one search of masks for four tasks against four searches, one a task, of as many steps.

Steps of the strategy `masks` as it runs them, batches and checkpoints included, in turns; the shipped grid, float, at
64x96. What comes after learning (measuring designs) is left out: it is the same work for each search.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from _common import Outcome, Row, main
from _masks import learning, scenes, small_grid

from edgemtl.train import training_batches

STEPS, QUICK_STEPS = 60, 8
ROUNDS = 2


def run(options: argparse.Namespace) -> Outcome:
    """Seconds of both, summed over rounds in turns."""
    source = scenes(256)
    steps = QUICK_STEPS if options.quick else STEPS
    searches = {"together": source.tasks, **{task.name: (task,) for task in source.tasks}}
    seconds: dict[str, float] = dict.fromkeys(searches, 0.0)
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(ROUNDS):
            for name in searches if number % 2 else reversed(searches):
                space = small_grid(searches[name])
                each = learning(space, source, steps, number, Path(scratch) / f"{name}{number}")
                start = time.perf_counter()
                for batch in training_batches(source.split("train"), space.tasks, each.recipe, 0, 0):
                    each.one_step(batch)
                seconds[name] += time.perf_counter() - start
    alone = sum(value for name, value in seconds.items() if name != "together")
    return Outcome([Row("one_search_over_four", seconds["together"] / alone, "x", 0.35, 0.25)], {"seconds": seconds})


if __name__ == "__main__":
    main(run, __doc__)
