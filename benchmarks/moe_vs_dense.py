"""One task's latency on the mixture-of-experts ViT-S against the dense ViT-S of equal FLOPs; interleaved.

An expert takes at most 1.25 times an even share of an image's tokens. The same net without that bound, which drops no
token whatever an image sends where, stands beside it.
"""

from __future__ import annotations

import argparse

from _common import Outcome, Row, main
from _vit_small import ENGINES, drawn_in_turns, vit_small

from edgemtl.profiling import ratios
from edgemtl.targets import find_target

OPENED = 3


def run(options: argparse.Namespace) -> Outcome:
    """A ratio for every runtime and precision, over several engines of each."""
    nets = {"dense": vit_small(experts=False), "bounded": vit_small(bounded=True), "unbounded": vit_small()}
    flops = {name: net.plan.cost().flops for name, net in nets.items()}
    rows, raw = [], {"flops": flops}
    for name, (runtime, engine) in ENGINES.items():
        sides = {n: (net, find_target(runtime)) for n, net in nets.items()}
        samples = drawn_in_turns(sides, engine, 1 if options.quick else OPENED)
        found = ratios(samples, "dense")
        rows.append(Row(name, found["bounded"].value, "x", 1.25, 1.05))
        rows.append(Row(f"{name}_unbounded", found["unbounded"].value, "x"))
        medians = {n: each.median_ms for n, each in samples.items()}
        raw[name] = {"median_ms": medians, "interval": {n: [each.low, each.high] for n, each in found.items()}}
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
