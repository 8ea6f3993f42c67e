"""How much of a net can go: FLOPs and parameters removed, and the delta_m that is lost after fine-tuning.

The unpruned net is the largest design, trained further alone for as long as the pruned one is after it.
"""

from __future__ import annotations

import argparse

from _common import Outcome, Row, main
from _prunings import QUICK_STEPS, STEPS, begun, unpruned
from _runs import edgemtl

from edgemtl.results import read_result

BUDGETS = ("--budget", "40%FLOPs", "--budget", "40%params")


def run(options: argparse.Namespace) -> Outcome:
    """Prune by trials (with --quick by the map) and train the result further, taught by the unpruned net."""
    whole = unpruned(options.quick)
    pruned = whole.with_name(f"{whole.name}-60")
    tuned = whole.with_name(f"{whole.name}-60-tuned")
    how = ["--fast"] if options.quick else []
    edgemtl("prune", str(whole), *BUDGETS, *how, "--out", str(pruned), *begun(pruned))
    steps = ["--steps", QUICK_STEPS if options.quick else STEPS, "--batch", "8"]
    edgemtl("train", "--run", str(pruned), *steps, "--out", str(tuned), *begun(tuned))
    result, before = read_result(tuned), read_result(pruned)
    best, base = result.best, result.baseline
    assert best is not None and base is not None and best.delta_m is not None and before.best is not None
    rows = [
        Row("flops_removed", 100 * (1 - best.flops / base.flops), "%", 60, None, False),
        Row("params_removed", 100 * (1 - best.params / base.params), "%", 60, None, False),
        Row("delta_m_lost", -100 * best.delta_m, "%", None if options.quick else 1.5),
    ]
    return Outcome(
        rows, {"metrics": best.metrics, "unpruned": base.metrics, "delta_m_before_tuning": before.best.delta_m}
    )


if __name__ == "__main__":
    main(run, __doc__)
