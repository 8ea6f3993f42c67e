"""From a preference over tasks and a budget in FLOPs to the widths of every block, with the table that is made once.

The answer is a whole design whose cost was counted. How long making the table takes is printed next to it.
"""

from __future__ import annotations

import argparse
import random
import time

from _common import Outcome, Row, main
from _runs import scenes_evaluator, scenes_sensitivity

from edgemtl.nas.evaluation.problem import Limit
from edgemtl.nas.search.strategies.preference import make_table, widths_for
from edgemtl.profiling import Samples
from edgemtl.units import Budget

QUESTIONS, QUICK_QUESTIONS = 400, 40
GFLOPS = (0.6, 4.0)


def run(options: argparse.Namespace) -> Outcome:
    """Ask for random preferences and budgets, each once, so that nothing is remembered."""
    space, _ = scenes_evaluator("onnxruntime")
    start = time.perf_counter()
    table = make_table(space, scenes_sensitivity())
    made_s = time.perf_counter() - start
    rng, spent_ms = random.Random(0), []
    for _ in range(QUICK_QUESTIONS if options.quick else QUESTIONS):
        preference = {task.name: rng.random() for task in space.tasks}
        flops = rng.uniform(*GFLOPS) * 1e9
        limit = Limit(Budget("flops", flops, f"{flops:.0f}FLOPs"), flops)
        start = time.perf_counter()
        design = widths_for(table, preference, [limit])
        spent_ms.append(1000 * (time.perf_counter() - start))
        assert limit.count(design) <= limit.value
    samples = Samples(tuple(spent_ms), 0, 1)
    rows = [
        Row("preference_to_widths_median", samples.median_ms, "ms", 50, 5),
        Row("preference_to_widths_slowest", max(spent_ms), "ms", 50, 5),
        Row("table_made_once", made_s, "s"),
    ]
    return Outcome(rows, {"encoders": len(table.encoders), "spent_ms": spent_ms})


if __name__ == "__main__":
    main(run, __doc__)
