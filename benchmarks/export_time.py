"""How long one design takes to become an engine on each target that runs here: what a search pays for a latency.

The largest design of the default space, in the target's INT8 and float precisions; ranges are there before.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from _common import Outcome, Row, main
from _runs import scenes_evaluator

from edgemtl.nas.evaluation import Candidate
from edgemtl.targets import ExportTarget

ROUNDS = 5


def run(options: argparse.Namespace) -> Outcome:
    """Build each precision in turns and keep the slowest one's median."""
    rows, raw = [], {}
    for target in ("onnxruntime", "openvino"):
        space, evaluator = scenes_evaluator(target)
        base = evaluator.candidate(space.largest())
        ranges = evaluator.ranges(base.net)
        designs = {"/".join(sorted(set(d.precision.values()))): d for d in space.uniform(base.design)}
        seconds: dict[str, list[float]] = {name: [] for name in designs}
        for _ in range(1 if options.quick else ROUNDS):
            for name, design in designs.items():
                seconds[name].append(_build(evaluator.target, Candidate(design, base.net, ranges)))
        medians = {name: sorted(values)[len(values) // 2] for name, values in seconds.items()}
        rows.append(Row(f"slowest_on_{target}", max(medians.values()), "s", 3))
        raw[target] = seconds
    return Outcome(rows, raw)


def _build(target: ExportTarget, candidate: Candidate) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        target.build(candidate.net, candidate.design.precision, candidate.ranges, Path(folder))
        return time.perf_counter() - start


if __name__ == "__main__":
    main(run, __doc__)
