"""delta_m of the designs that a search chooses at three budgets, straight from the shipped supernet.

`edgemtl search` with its defaults but without fine-tuning: what the weights of a design are worth as they come out of
the supernet. delta_m is against the largest net, on test images, which decide nothing, by the real engines. The
largest net itself must be no worse than that of the supernet before: a weaker one would make every delta_m better.

Three searches: a quarter of an hour on two cores with AVX-512, half an hour on AVX2; each is kept under `runs/` and
gone on with after a kill. --quick makes one search of a few designs in under two minutes.
"""

from __future__ import annotations

import argparse

from _common import Outcome, Row, main, say
from _runs import searched

from edgemtl.data.scenes.source import SCENES_TASKS
from edgemtl.results import read_result

LIMITS = {"2GFLOPs": (-6.0, -3.0), "1.4GFLOPs": (-10.0, -6.0), "0.9GFLOPs": (-16.0, -10.0)}
RUN_NAMES = {"2GFLOPs": "first", "1.4GFLOPs": "second", "0.9GFLOPs": "third"}
QUICK_BUDGETS = ("1.4GFLOPs",)
QUICK_EVALUATIONS = "6"
LARGEST = {"semseg": 0.571, "depth": 0.871, "normals": 17.7, "edges": 0.552}
UNITS = {"depth": "m", "normals": "deg"}


def run(options: argparse.Namespace) -> Outcome:
    """A search at each budget."""
    evaluations = ["--evaluations", QUICK_EVALUATIONS] if options.quick else []
    rows, raw, largest = [], {}, {}
    for budget in QUICK_BUDGETS if options.quick else LIMITS:
        name = f"quick-{budget}" if options.quick else RUN_NAMES[budget]
        result = read_result(searched(name, "--budget", budget, *evaluations).path)
        assert result.best is not None and result.baseline is not None and result.best.delta_m is not None
        delta, (least, aim) = 100 * result.best.delta_m, LIMITS[budget]
        say(f"{budget}: {delta:+.2f} % at {result.best.flops / 1e9:.2f} GFLOPs")
        rows.append(Row(f"delta_m_at_{budget}", delta, "%", least, aim, lower_is_better=False))
        largest = result.baseline.metrics
        raw[budget] = {
            "feasible": result.feasible,
            "flops": result.best.flops,
            "metrics": result.best.metrics,
            "design": result.best.design,
            "evaluations": result.evaluations,
        }
    return Outcome([*rows, *largest_rows(largest)], {**raw, "largest": largest})


def largest_rows(metrics: dict[str, dict[str, float]]) -> list[Row]:
    """The largest net's deciding metrics against those of the supernet before."""
    return [
        Row(
            f"largest_{task.name}_{task.metric.name}",
            metrics[task.name][task.metric.name],
            UNITS.get(task.name, ""),
            LARGEST[task.name],
            None,
            lower_is_better=not task.metric.higher_is_better,
        )
        for task in SCENES_TASKS
    ]


if __name__ == "__main__":
    main(run, __doc__)
