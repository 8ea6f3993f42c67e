"""Whether the searched design keeps a schedule on each runtime, at 60 % and at 120 % of what was measured just before.

The first task runs twice as often as the others, and their jobs meet in one call. The capacity is what the medians of
these calls, timed without a pause, leave room for; calls after a sleep are slower, and what that costs shows at 60 %.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from _common import Outcome, Row, main, say
from _runs import scenes_evaluator, searched

from edgemtl.profiling import Demand, measure_demand, percentile
from edgemtl.runtime import Schedule, ScheduleRun, open_engine, run_schedule
from edgemtl.targets import find_target

SHARES = (0.6, 1.2)
SECONDS, QUICK_SECONDS = 30.0, 3.0


def run(options: argparse.Namespace) -> Outcome:
    """Deadlines that were not kept, and achieved rates over asked ones, at both loads."""
    arguments = ["--evaluations", "12"] if options.quick else []
    candidate = searched("quick" if options.quick else "first", "--budget", "2GFLOPs", *arguments).load("best")
    _, evaluator = scenes_evaluator("onnxruntime")
    frame, seconds = evaluator.sample_image, QUICK_SECONDS if options.quick else SECONDS
    rows, raw = [], {}
    for target in ("onnxruntime", "openvino"):
        with tempfile.TemporaryDirectory() as scratch:
            find_target(target).build(candidate.net, candidate.design.precision, candidate.ranges, Path(scratch))
            with closing(open_engine(Path(scratch))) as session:
                first, *others = session.tasks
                wanted = Schedule({first: 20.0, **dict.fromkeys(others, 10.0)})
                demand = measure_demand(session, frame, wanted, seconds)
                runs = {share: run_schedule(session, [frame], demand.keepable(share), seconds) for share in SHARES}
        raw[target] = {f"{share:.0%}": _figures(found) for share, found in runs.items()} | _capacity(demand)
        say(f"{target}: {raw[target]}")
        kept, flood = runs[SHARES[0]], runs[SHARES[1]]
        rows.append(Row(f"{target}_not_in_time_at_60%", _not_in_time(kept), "%", 1.0, 0.0))
        rows.append(Row(f"{target}_achieved_at_60%", _achieved(kept), "of asked", 0.99, 1.0, lower_is_better=False))
        rows.append(Row(f"{target}_not_in_time_at_120%", _not_in_time(flood), "%"))
        rows.append(Row(f"{target}_achieved_at_120%", _achieved(flood), "of asked", lower_is_better=False))
    return Outcome(rows, raw)


def _capacity(demand: Demand) -> dict[str, Any]:
    calls = {"+".join(tasks): spent for tasks, spent in demand.call_ms.items()}
    return {"call_ms": calls, "full": str(demand.keepable())}


def _not_in_time(found: ScheduleRun) -> float:
    """Per cent of all jobs that were released and missed or skipped."""
    tasks = found.tasks.values()
    return 100 * sum(task.missed + task.skipped for task in tasks) / sum(task.released for task in tasks)


def _achieved(found: ScheduleRun) -> float:
    """Achieved over asked rate of the task that fell behind most."""
    return min(found.achieved_hz(task) / wanted for task, wanted in found.schedule.rates_hz.items())


def _figures(found: ScheduleRun) -> dict[str, Any]:
    tasks = {
        task: {
            "released": each.released,
            "done": each.done,
            "missed": each.missed,
            "skipped": each.skipped,
            "achieved_hz": found.achieved_hz(task),
            "p50_ms": percentile(each.latencies_ms, 0.5),
            "p99_ms": percentile(each.latencies_ms, 0.99),
        }
        for task, each in found.tasks.items()
    }
    return {"schedule": str(found.schedule), "busy_share": found.busy_share, "tasks": tasks}


if __name__ == "__main__":
    main(run, __doc__)
