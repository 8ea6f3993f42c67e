"""`edgemtl run --schedule`: each task at its own rate, images cycled as the frames of a camera."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemtl.cli.screen import Screen
from edgemtl.cli.stages import Stages
from edgemtl.cli.verb import Interrupted

if TYPE_CHECKING:
    from edgemtl.profiling import Demand
    from edgemtl.runtime import Engine, ScheduleRun, TaskRun

__all__ = ["run_at_rates"]

PICTURE, RESULT = "schedule.svg", "schedule.json"
INCLUDES = (
    "latency is from a job's release to its raw outputs, waiting included; images were decoded and normalised before, "
    "and nothing is post-processed"
)


def run_at_rates(
    screen: Screen, engine: Engine, images: Sequence[Path], text: str, seconds: float, threads: int, out: Path
) -> None:
    """Run the schedule `text` on an open engine, show it, and write its timeline and result into `out`.

    Raises `UserError` for a schedule or an image that cannot be used, and `Interrupted` after an early end that Ctrl-C
    asked for: the part that ran is still shown and written.
    """
    from edgemtl.environment import environment
    from edgemtl.files.disk import write_atomic, write_json
    from edgemtl.profiling import measure_demand
    from edgemtl.report import draw_schedule
    from edgemtl.runtime import parse_schedule, prepare_image, run_schedule

    schedule = parse_schedule(text, [task.name for task in engine.tasks])
    size = (engine.manifest.input.height, engine.manifest.input.width)
    frames = [prepare_image(path, size, engine.manifest.input) for path in images]
    demand = measure_demand(engine.session, frames[0], schedule, seconds)
    if objection := demand.objection():
        screen.note(f"warning: {objection}")
    with Stages() as stages:
        schedule_run = run_schedule(engine.session, frames, schedule, seconds, report=stages)
    value = {
        "bundle": str(engine.folder),
        "target": engine.target,
        "threads": threads,
        "images": len(frames),
        **_value(schedule_run, demand, seconds),
        "picture": str(out / PICTURE),
        "environment": environment(),
    }
    _show(screen, schedule_run, demand, f"{engine.folder} on {engine.target}", value["tasks"])
    write_atomic(out / PICTURE, draw_schedule(schedule_run))
    write_json(out / RESULT, value)
    screen.say(f"written: {out / PICTURE}, {out / RESULT}")
    screen.json(value)
    if schedule_run.interrupted:
        raise Interrupted(
            f"{out / PICTURE} and {out / RESULT} hold the {schedule_run.elapsed_s:.1f} s that ran until then"
        )


def _value(schedule_run: ScheduleRun, demand: Demand, seconds: float) -> dict[str, Any]:
    return {
        "schedule": dict(schedule_run.schedule.rates_hz),
        "seconds": seconds,
        "elapsed_s": schedule_run.elapsed_s,
        "interrupted": schedule_run.interrupted,
        "kind": "measured",
        "includes": INCLUDES,
        "demand": {
            "utilisation": demand.utilisation,
            "call_ms": {"+".join(tasks): spent for tasks, spent in demand.call_ms.items()},
        },
        "busy_share": schedule_run.busy_share,
        "tasks": {task: _figures(each, schedule_run.achieved_hz(task)) for task, each in schedule_run.tasks.items()},
        "calls": [{"start_s": c.start_s, "end_s": c.end_s, "tasks": list(c.tasks)} for c in schedule_run.calls],
    }


def _figures(task: TaskRun, achieved_hz: float) -> dict[str, Any]:
    from edgemtl.profiling import percentile

    samples = task.latencies_ms
    return {
        "asked_hz": task.rate_hz,
        "achieved_hz": achieved_hz,
        "released": task.released,
        "done": task.done,
        "missed": task.missed,
        "skipped": task.skipped,
        "pending": task.pending,
        "latency_ms": {
            "n": len(samples),
            **{f"p{round(100 * q)}": percentile(samples, q) for q in (0.5, 0.9, 0.99)},
            "max": max(samples, default=None),
            "samples": list(samples),
        },
    }


def _show(screen: Screen, schedule_run: ScheduleRun, demand: Demand, name: str, tasks: Mapping[str, Any]) -> None:
    rows = [
        (
            task,
            f"{each['asked_hz']:g}",
            f"{each['achieved_hz']:.4g}",
            *(each[key] for key in ("done", "missed", "skipped")),
            *(None if (ms := each["latency_ms"][key]) is None else f"{ms:.2f}" for key in ("p50", "p90", "p99", "max")),
        )
        for task, each in tasks.items()
    ]
    columns = ("task", "asked Hz", "achieved Hz", "done", "missed", "skipped", "p50 ms", "p90 ms", "p99 ms", "max ms")
    if not screen.as_json:
        screen.table(f"{name}: {schedule_run.elapsed_s:.1f} s of {schedule_run.schedule}", columns, rows)
    screen.say(f"{INCLUDES}; a percentile is hidden where too few samples lie beyond it")
    screen.say(
        f"{len(schedule_run.calls)} calls kept the engine busy for {schedule_run.busy_share:.0%} of the time "
        f"({demand.utilisation:.0%} by the median of each call, measured before)"
    )
    if any(each["missed"] or each["skipped"] for each in tasks.values()):
        screen.say("deadlines were missed, which is no error: the exit status tells of errors only")
