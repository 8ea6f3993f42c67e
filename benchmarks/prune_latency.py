"""Latency of the engines of nets pruned to six budgets in FLOPs, drawn in turns: it must fall at every step.

The net is the default space's largest on images of 96x128 pixels; engines are FP32.
"""

from __future__ import annotations

import argparse
from itertools import pairwise

from _common import Outcome, Row, main
from _prunings import fitted, latencies_ms, mapped

from edgemtl.models import recalibrate

BUDGETS = ("100%FLOPs", "85%FLOPs", "70%FLOPs", "55%FLOPs", "40%FLOPs", "25%FLOPs")
ENGINES = 6


def run(options: argparse.Namespace) -> Outcome:
    """The ratio of each latency to the one before; the largest is below 1 where all fall."""
    opened, prune_map = mapped(options.quick)
    prunable = opened.prunable
    channels = {budget: fitted(prunable, prune_map, [budget]).channels for budget in BUDGETS}
    nets = {budget: prunable.narrow(prune_map.orders, each) for budget, each in channels.items()}
    for net in nets.values():
        recalibrate(net, prunable.criterion.recalibration)
    ms = latencies_ms(nets, "onnxruntime", 1 if options.quick else ENGINES)
    ratios = [ms[after] / ms[before] for before, after in pairwise(BUDGETS)]
    rows = [Row("largest_step_ratio", max(ratios), "x", None if options.quick else 1.0)]
    return Outcome(
        rows, {"ms": ms, "flops": {name: opened.design(each).cost().flops for name, each in channels.items()}}
    )


if __name__ == "__main__":
    main(run, __doc__)
