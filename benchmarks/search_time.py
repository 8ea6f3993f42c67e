"""From the shipped supernet to a chosen, fine-tuned design with measured metrics: `edgemtl search --budget 2GFLOPs`.

The whole of it, with an empty cache: rendering the images is part of it, and so is importing. Where the minutes go
stands in a row for each stage: the time up to each event of its progress since the event before. With --quick the
search measures 12 designs instead of its default, and trains for 20 steps.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections import defaultdict
from dataclasses import replace

from _common import Outcome, Row, main, say
from _runs import RUNS

from edgemtl.progress import Progress

STAGES = {
    "": "other",
    "score": "scoring",
    "search": "evaluations",
    "finetune": "fine_tuning",
    "preflight": "preflight",
    "finalists": "precisions",
}


class StageClock:
    """A receiver of progress that adds up the seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._last = time.perf_counter()

    def charge(self, stage: str) -> None:
        """Add the time since the last charge to a stage."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._last
        self._last = now

    def __call__(self, event: Progress) -> None:
        """See `charge`."""
        self.charge("images" if event.stage.endswith(" images") else STAGES.get(event.stage, event.stage))
        say(f"{event.stage}: {event.done}/{event.total} {event.text}")


def run(options: argparse.Namespace) -> Outcome:
    """Time one search as the command line does it on a fresh machine."""
    out = RUNS / ("quick-timed" if options.quick else "timed")
    shutil.rmtree(out, ignore_errors=True)
    clock = StageClock()
    from edgemtl.nas.search import SearchRequest, search
    from edgemtl.train import training_processes

    clock.charge("imports")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["EDGEMTL_CACHE"] = cache
        request = SearchRequest(out, ("2GFLOPs",), processes=training_processes())
        result = search(replace(request, evaluations=12, finetune=20) if options.quick else request, clock)
    clock.charge("scoring")
    assert result.best is not None
    assert result.best.latency_ms is not None
    rows = [
        Row("search_minutes", sum(clock.seconds.values()) / 60, "min", 15, 7),
        *(Row(f"{stage}_minutes", seconds / 60, "min") for stage, seconds in clock.seconds.items()),
        Row("chosen_flops", result.best.flops / 1e9, "GFLOPs", 2.0),
    ]
    raw = {
        "evaluations": result.evaluations,
        "fine_tuning": None if result.best.fine_tuning is None else result.best.fine_tuning.model_dump(),
        "delta_m": result.best.delta_m,
        "latency_ms": result.best.latency_ms.value,
        "metrics": result.best.metrics,
        "feasible": result.feasible,
    }
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
