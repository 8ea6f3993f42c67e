"""The verb `profile`: everything that is measured about one model, and what follows from it by arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from edgemtl._environment import environment
from edgemtl.devices import load_device
from edgemtl.errors import UnsupportedError, UserError
from edgemtl.profiling._derive import (
    count_file,
    mode_sets,
    operator_shares,
    separate_ms,
    task_profiles,
    trunk_ms,
)
from edgemtl.profiling._measure import Progress, compare
from edgemtl.profiling._opening import measure_opening
from edgemtl.profiling._schema import Mode, Profile
from edgemtl.profiling._subjects import Subject, open_subject
from edgemtl.profiling._watch import Watch
from edgemtl.tasks import check_tasks

__all__ = ["profile"]

BURST = 10
OPERATOR_RUNS = 20


def profile(
    path: Path,
    device: str = "host",
    *,
    target: str | None = None,
    threads: int = 0,
    runs: int = 200,
    tasks: str | Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Profile:
    """Measure a bundle, an engine folder or an ONNX file on this machine.

    All tasks together, each alone, and all but each are timed in turns (`compare`), at least `runs` samples each;
    what the trunk and each task's own part cost is derived from those. `tasks` limits the profile to a mode
    (a string is one task), `threads` 0 leaves their number to the runtime, `progress` hears of drawn samples. Raises
    `UserError` for what cannot be opened and `UnsupportedError` for a device that is not this machine.
    """
    start = perf_counter()
    _check(path, device, runs, threads)
    subject = open_subject(path, target, threads)
    try:
        wanted = _wanted(subject, tasks)
        opening = measure_opening(path, target, threads)
        modes = mode_sets(wanted)
        calls = {name: subject.call(chosen) for name, chosen in modes.items()}
        with Watch() as watch:
            samples = compare(calls, math.ceil(runs / (2 * BURST)), burst=BURST, progress=progress)
        operators = operator_shares(subject.operators(wanted, OPERATOR_RUNS), wanted, OPERATOR_RUNS)
    finally:
        subject.close()
    latencies = {frozenset(chosen): samples[name].median_ms for name, chosen in modes.items()}
    blocks = {
        name: each.block(device=device, runtime=subject.runtime, threads=threads, includes=subject.includes)
        for name, each in samples.items()
    }
    return Profile(
        name=subject.name,
        source=subject.source,
        target=subject.target,
        runtime=subject.runtime,
        device=device,
        threads=threads,
        tasks=wanted,
        modes=tuple(Mode(name=name, tasks=chosen, latency=blocks[name]) for name, chosen in modes.items()),
        task_costs=task_profiles(wanted, latencies),
        trunk_ms=trunk_ms(wanted, latencies),
        separate_ms=separate_ms(wanted, latencies),
        counts=count_file(subject.graph, wanted),
        operators=operators,
        opening=opening,
        stability=watch.stability(samples),
        seconds=perf_counter() - start,
        environment=environment(),
    )


def _check(path: Path, device: str, runs: int, threads: int) -> None:
    if load_device(device).kind != "host":
        raise UnsupportedError(
            f"device {device} is not this machine and is not reached from here in this version: copy {path.name} and "
            "edgemtl there, run edgemtl profile on it, and bring the profile.json back"
        )
    if runs < 1 or threads < 0:
        raise UserError(
            f"runs {runs} and threads {threads}: give at least 1 run, and 0 (the runtime's choice) or more threads"
        )
    if not path.exists():
        raise UserError(f"{path} does not exist: give a bundle, an engine folder or a .onnx file")


def _wanted(subject: Subject, tasks: str | Sequence[str] | None) -> tuple[str, ...]:
    return tuple(subject.tasks) if tasks is None else check_tasks(tasks, subject.tasks)
