"""From the shipped supernet to a chosen design with measured metrics and latency: `edgemtl search --budget 2GFLOPs`.

Whole process, with an empty cache: rendering the validation, calibration and test images is part of it. With --quick
the search measures 12 designs instead of its default.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from _common import Outcome, Row, main
from _runs import RUNS, edgemtl

from edgemtl.results import read_result


def run(options: argparse.Namespace) -> Outcome:
    """Time one search as a user would start it on a fresh machine; its run is what other benchmarks look at."""
    out = RUNS / ("answer-quick" if options.quick else "answer")
    shutil.rmtree(out, ignore_errors=True)
    arguments = [
        "search",
        "--budget",
        "2GFLOPs",
        "--out",
        str(out),
        *(["--evaluations", "12"] if options.quick else []),
    ]
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        edgemtl(*arguments, cache=Path(cache))
        seconds = time.perf_counter() - start
    result = read_result(out)
    assert result.best is not None
    assert result.best.latency_ms is not None
    rows = [
        Row("search_minutes", seconds / 60, "min", 10, 4),
        Row("chosen_flops", result.best.flops / 1e9, "GFLOPs", 2.0),
    ]
    raw = {
        "evaluations": result.evaluations,
        "delta_m": result.best.delta_m,
        "latency_ms": result.best.latency_ms.value,
        "metrics": result.best.metrics,
        "feasible": result.feasible,
    }
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
