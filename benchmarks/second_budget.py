"""Another budget from a finished run: `edgemtl search --from RUN --budget 1.4GFLOPs`, the whole process timed.

The first run is an ordinary search under 2 GFLOPs (with --quick a short one), which is not timed. Every further budget
is asked for twice; the median counts.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

from _common import Outcome, Row, main
from _runs import edgemtl, searched

from edgemtl.results import read_result

BUDGETS = ("1.4GFLOPs", "0.9GFLOPs", "3MB")


def run(options: argparse.Namespace) -> Outcome:
    """Ask a finished run for other budgets."""
    short = ("--evaluations", "12") if options.quick else ()
    first = searched("known-quick" if options.quick else "known", "--budget", "2GFLOPs", *short)
    seconds: list[float] = []
    answers = {}
    with tempfile.TemporaryDirectory(prefix="edgemtl-second-") as scratch:
        for budget in [*BUDGETS, *BUDGETS]:
            out = Path(scratch) / "run"
            shutil.rmtree(out, ignore_errors=True)
            start = time.perf_counter()
            edgemtl("search", "--from", str(first.path), "--budget", budget, "--out", str(out))
            seconds.append(time.perf_counter() - start)
            result = read_result(out)
            assert result.best is not None
            answers[budget] = {"feasible": result.feasible, "delta_m": result.best.delta_m, "flops": result.best.flops}
    rows = [
        Row("second_budget_seconds", median(seconds), "s", 20, 5),
        Row("slowest_seconds", max(seconds), "s", 20),
    ]
    return Outcome(rows, {"seconds": seconds, "answers": answers})


if __name__ == "__main__":
    main(run, __doc__)
