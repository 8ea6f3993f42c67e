"""Six budgets for one net: how much of each the pruned net uses; never more than all of it.

Four are counted, from the sensitivity map; one is in ms, met on the engine; and one is met by trials (with --quick by
the map). Images are 96x128 pixels.
"""

from __future__ import annotations

import argparse
import re

from _common import Outcome, Row, main
from _prunings import fitted, limits_of, mapped, pruned, unpruned

from edgemtl.results import read_result

COUNTED = ("60%FLOPs", "60%params", "40%MB", "depth:50%FLOPs")
TIMED = "70%ms"
BY_TRIAL = "40%FLOPs"


def run(options: argparse.Namespace) -> Outcome:
    """Rows of what is left unused, and the largest share of a budget that was used.

    Latency falls in steps, and what is timed varies by more than 2 %, so only the upper side of that budget is judged.
    """
    opened, prune_map = mapped(options.quick)
    prunable = opened.prunable
    used = {}
    for budget in COUNTED:
        used[budget] = max(
            prunable.shares(limits_of(prunable, [budget]), fitted(prunable, prune_map, [budget]).channels)
        )
    whole = unpruned(options.quick)
    how = ["--fast"] if options.quick else []
    (limit,) = limits_of(prunable, [BY_TRIAL])
    best = read_result(pruned(whole, "by-trial", "--budget", BY_TRIAL, *how)).best
    assert best is not None
    used[BY_TRIAL] = best.flops / limit.value
    timed = read_result(pruned(whole, "in-time", "--budget", TIMED, "--fast"))
    assert timed.best is not None and timed.best.latency_ms is not None
    assert timed.baseline is not None and timed.baseline.latency_ms is not None
    in_time = timed.best.latency_ms.value / (0.7 * timed.baseline.latency_ms.value)
    rows = [
        Row(f"unused_{re.sub(r'[^0-9A-Za-z]+', '_', name)}", 100 * (1 - share), "%", 2) for name, share in used.items()
    ]
    rows += [
        Row("unused_70_ms", 100 * (1 - in_time), "%"),
        Row("kept_70_ms", float(timed.feasible), "of 1", 1, 1, False),
    ]
    return Outcome([*rows, Row("largest_share_used", max(used.values()), "of budget", 1.0)], {"used": used})


if __name__ == "__main__":
    main(run, __doc__)
