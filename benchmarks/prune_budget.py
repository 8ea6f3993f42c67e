"""Six budgets for one net: how much of each the pruned net uses; never more than all of it.

Answered from the sensitivity map; a full run also prunes by trials under one of them.
"""

from __future__ import annotations

import argparse
import re

from _common import Outcome, Row, main
from _prunings import begun, fitted, limits_of, mapped
from _runs import ROOT, edgemtl

from edgemtl.nas import RunFolder

BUDGETS = ("80%FLOPs", "60%FLOPs", "40%FLOPs", "60%params", "40%MB", "depth:50%FLOPs")
BY_TRIAL = "40%FLOPs"


def run(options: argparse.Namespace) -> Outcome:
    """Rows of what is left unused, and the largest share of a budget that was used."""
    pruning, known = mapped(options.quick)
    used = {}
    for budget in BUDGETS:
        used[budget] = max(pruning.shares(limits_of(pruning, [budget]), fitted(pruning, known, [budget]).kept))
    if not options.quick:
        path = ROOT / "runs" / "first-unpruned-by-trial"
        edgemtl("prune", str(path.with_name("first-unpruned")), "--budget", BY_TRIAL, "--out", str(path), *begun(path))
        (limit,) = limits_of(pruning, [BY_TRIAL])
        used[f"{BY_TRIAL} by trial"] = limit.count(RunFolder(path).load().design) / limit.value
    rows = [
        Row(f"unused_{re.sub(r'[^0-9A-Za-z]+', '_', name)}", 100 * (1 - share), "%", 2) for name, share in used.items()
    ]
    return Outcome([*rows, Row("largest_share_used", max(used.values()), "of budget", 1.0)], {"used": used})


if __name__ == "__main__":
    main(run, __doc__)
