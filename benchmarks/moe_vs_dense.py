"""One task's latency on the mixture-of-experts ViT-S against the dense ViT-S of equal FLOPs; interleaved."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import numpy as np
from _common import Outcome, Row, main
from _runs import drawn
from _vit_small import ENGINES, SIZE, opened, vit_small

from edgemtl.profiling import ratios
from edgemtl.targets import find_target

OPENED = 3


def run(options: argparse.Namespace) -> Outcome:
    """A ratio for every runtime and precision, over several engines of each."""
    nets = {"dense": vit_small(experts=False), "moe": vit_small()}
    flops = {name: net.plan.cost().flops for name, net in nets.items()}
    image = np.random.default_rng(0).standard_normal((1, 3, *SIZE), np.float32)
    rows, raw = [], {"flops": flops}
    for name, (runtime, engine) in ENGINES.items():

        def opens(stack: ExitStack, runtime: str = runtime, engine: str = engine) -> dict[str, Callable[[], object]]:
            sessions = {n: opened(stack, net, find_target(runtime), engine, [["task0"]]) for n, net in nets.items()}
            return {n: partial(session.run, image, ["task0"]) for n, session in sessions.items()}

        samples = drawn(opens, 1 if options.quick else OPENED)
        found = ratios(samples, "dense")["moe"]
        rows.append(Row(name, found.value, "x", 1.25, 1.05))
        medians = {n: each.median_ms for n, each in samples.items()}
        raw[name] = {"median_ms": medians, "interval": [found.low, found.high]}
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
