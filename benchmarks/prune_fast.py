"""A new budget once the sensitivity map exists: seconds from the run's folder to the pruned net, recalibrated.

The whole command, which also scores the net on test images and times its engine, is shown beside it. Images are 96x128
pixels; the map is that of the default space's largest net, measured before where it is there.
"""

from __future__ import annotations

import argparse
import shutil
import time

from _common import Outcome, Row, main
from _prunings import fitted, mapped, unpruned
from _runs import RUNS, edgemtl

from edgemtl.nas.prune import RunDesign
from edgemtl.nas.prune.map import open_map

BUDGETS = ("70%FLOPs", "50%FLOPs", "50%params")


def run(options: argparse.Namespace) -> Outcome:
    """The slowest of three budgets."""
    mapped(options.quick)
    path, seconds = unpruned(options.quick), {}
    for budget in BUDGETS:
        start = time.perf_counter()
        prunable = RunDesign(path).open().prunable
        prune_map = open_map(prunable)
        net = prunable.narrow(prune_map.orders, fitted(prunable, prune_map, [budget]).channels)
        prunable.criterion.losses(net, list(prune_map.base))
        seconds[budget] = time.perf_counter() - start
    out = RUNS / "fast"
    shutil.rmtree(out, ignore_errors=True)
    start = time.perf_counter()
    edgemtl("prune", str(path), "--budget", BUDGETS[0], "--fast", "--out", str(out))
    command = time.perf_counter() - start
    rows = [
        Row("new_budget", max(seconds.values()), "s", 10),
        Row("whole_command", command, "s"),
    ]
    return Outcome(rows, {"seconds": seconds})


if __name__ == "__main__":
    main(run, __doc__)
