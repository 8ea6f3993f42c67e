"""The answer of a search as a user gets it: delta_m and mIoU of the design chosen at 2 GFLOPs, fine-tuned by default.

`edgemtl search --budget 2GFLOPs`, nothing else: what may be chosen is trained for the default number of steps. delta_m
is against the largest net, on test images, which decide nothing, by the real engines.

About as long as `search_time`; the run is kept under `runs/` and gone on with after a kill. --quick measures few
designs and trains them for a few steps, in under five minutes.
"""

from __future__ import annotations

import argparse

from _common import Outcome, Row, main
from _runs import searched

from edgemtl.results import read_result

QUICK = ("--evaluations", "6", "--finetune", "20")


def run(options: argparse.Namespace) -> Outcome:
    """One search."""
    name, few = ("quick-answer", QUICK) if options.quick else ("answer", ())
    result = read_result(searched(name, "--budget", "2GFLOPs", *few, finetuned=True).path)
    best, baseline = result.best, result.baseline
    assert best is not None and best.delta_m is not None and baseline is not None
    rows = [
        Row("delta_m", 100 * best.delta_m, "%", -1.5, 0.0, lower_is_better=False),
        Row("miou", best.metrics["semseg"]["miou"], "", 0.55, None, lower_is_better=False),
        Row("chosen_flops", best.flops / 1e9, "GFLOPs", 2.0),
    ]
    if best.fine_tuning is not None:
        gained = best.fine_tuning.delta_m_after - best.fine_tuning.delta_m_before
        rows.append(Row("gained_on_validation", 100 * gained, "points", None, None, lower_is_better=False))
    raw = {
        "fine_tuning": None if best.fine_tuning is None else best.fine_tuning.model_dump(),
        "metrics": best.metrics,
        "largest": baseline.metrics,
        "design": best.design,
        "latency_ms": None if best.latency_ms is None else best.latency_ms.value,
        "evaluations": result.evaluations,
        "seconds": result.seconds,
    }
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
