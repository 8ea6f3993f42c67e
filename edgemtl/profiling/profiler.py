"""The verb `profile`: measurements of one model, and quantities derived from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

from edgemtl.devices import HOST, Device, load_device
from edgemtl.environment import environment
from edgemtl.errors import UnsupportedError, UserError
from edgemtl.profiling.consumption import energy_of
from edgemtl.profiling.derive import count_file, mode_sets, operator_shares, separate_ms, task_profiles, trunk_ms
from edgemtl.profiling.inputs import InputChoice
from edgemtl.profiling.measurer import Observation
from edgemtl.profiling.names import short_names
from edgemtl.profiling.opening import open_apart
from edgemtl.profiling.samples import Samples
from edgemtl.profiling.schema import MOST_INPUTS, Mode, Profile
from edgemtl.profiling.stability import judge_stability, unwatched
from edgemtl.profiling.subjects import ProfiledModel, open_subject
from edgemtl.profiling.watch import Watch
from edgemtl.progress import Report, silent
from edgemtl.tasks import check_tasks

__all__ = ["profile"]

BURST = 10
LONGEST_NOTES = 50
MOST_TASKS = 32
OPERATOR_RUNS = 20


def profile(
    path: Path,
    device: str = HOST,
    *,
    target: str | None = None,
    threads: int = 0,
    runs: int = 200,
    tasks: str | Sequence[str] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    report: Report = silent,
) -> Profile:
    """Measure a bundle, an engine folder or an ONNX file on this machine, or a device that a measurer reaches.

    All tasks together, each alone, and all but each are timed in turns (`compare`), `runs` samples each; what the trunk
    and each task's own part cost is derived from those. `tasks` limits the profile to a mode, `threads` 0 leaves their
    number to the runtime, `shapes` are sizes of an ONNX file's open inputs ("" for its only one). Raises `UserError`
    for what cannot be opened or run and `UnsupportedError` for a device that nothing reaches from here.
    """
    start = perf_counter()
    measured_on, choice = load_device(device), InputChoice(dict(shapes or {}))
    _check(path, measured_on, runs, threads)
    opened = open_apart(path, target, threads, choice) if measured_on.measurer is None else None
    subject = open_subject(path, target, threads, opened.choice if opened else choice, measured_on)
    rounds, burst = visits(runs)
    try:
        wanted = _wanted(subject, tasks)
        modes = mode_sets(wanted)
        samples, seen = _time(subject, modes, (rounds, burst), report, here=opened is not None)
        energy, unmeasured = energy_of(subject.draw_energy(modes, report=report), modes)
        operators = operator_shares(subject.operators(wanted, OPERATOR_RUNS), subject.owners, OPERATOR_RUNS)
    finally:
        subject.close()
    counts, count_notes = count_file(subject.graph, wanted, subject.heads, subject.choice)
    inputs, input_notes = _told_inputs(subject.choice)
    notes = (*(opened.notes if opened else ()), *_drawn_notes(runs, 2 * rounds * burst), *input_notes, *count_notes)
    latencies = {frozenset(chosen): samples[name].median_ms for name, chosen in modes.items()}
    return Profile(
        name=subject.name,
        source=subject.source,
        target=subject.target,
        runtime=subject.runtime,
        device=device,
        threads=threads,
        tasks=wanted,
        modes=_modes(modes, samples, subject, device, threads),
        task_costs=task_profiles(wanted, latencies),
        trunk_ms=trunk_ms(wanted, latencies),
        separate_ms=separate_ms(wanted, latencies),
        counts=counts,
        operators=operators,
        opening=opened.opening if opened else subject.opening,
        inputs=inputs,
        notes=_fitting(notes),
        engine_sha256=subject.engine_sha256,
        stability=judge_stability(samples, seen.disturbance) if seen else unwatched(samples),
        energy=energy,
        energy_unmeasured=unmeasured,
        seconds=perf_counter() - start,
        environment={**seen.environment, "sensors": seen.disturbance.sensors} if seen else environment(),
    )


def _time(
    subject: ProfiledModel, modes: Mapping[str, tuple[str, ...]], visits: tuple[int, int], report: Report, here: bool
) -> tuple[dict[str, Samples], Observation | None]:
    """Samples of each mode in rounds of visits, and what the machine that they were drawn on told, if it told."""
    rounds, burst = visits
    with Watch() as watch:
        samples = subject.compare(modes, rounds, burst=burst, report=report)
    return samples, Observation(environment(), watch.disturbance) if here else subject.observation


def _modes(
    modes: Mapping[str, tuple[str, ...]],
    samples: Mapping[str, Samples],
    subject: ProfiledModel,
    device: str,
    threads: int,
) -> tuple[Mode, ...]:
    """Each mode with its tasks and the latency block of its samples."""
    latency = partial(
        Samples.block,
        device=device,
        runtime=subject.runtime,
        threads=threads,
        includes=subject.includes,
        kind=subject.kind,
    )
    return tuple(Mode(name=name, tasks=tasks, latency=latency(samples[name])) for name, tasks in modes.items())


def visits(runs: int) -> tuple[int, int]:
    """Rounds, and samples per visit, for `runs` samples: two visits per round, of about `BURST` samples each.

    Where no number from 5 to 20 divides half of them, more samples are drawn until one does.
    """
    half = math.ceil(runs / 2)
    while True:
        fitting = [burst for burst in range(min(half, BURST // 2), 2 * BURST + 1) if half % burst == 0]
        if fitting:
            burst = min(fitting, key=lambda burst: abs(burst - BURST))
            return half // burst, burst
        half += 1


def _drawn_notes(runs: int, drawn: int) -> list[str]:
    if drawn == runs:
        return []
    return [f"{drawn} samples were drawn for {runs}: every set of tasks has as many forwards as backwards"]


def _told_inputs(choice: InputChoice) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """Sizes of the first inputs, as many as a result file holds, and a note where there are more."""
    shown = list(short_names(choice.shapes).items())[:MOST_INPUTS]
    more = len(choice.shapes) - len(shown)
    return {short: choice.shapes[name] for short, name in shown}, [f"{more} more inputs are left out"] if more else []


def _fitting(notes: Sequence[str]) -> tuple[str, ...]:
    """The first notes, each of a length that a result file holds, and how many more there are."""
    more = [f"{len(notes) - LONGEST_NOTES} more notes are left out"] if len(notes) > LONGEST_NOTES else []
    return tuple(note[:1000] for note in (*notes[:LONGEST_NOTES], *more))


def _check(path: Path, device: Device, runs: int, threads: int) -> None:
    if device.kind != "host" and device.measurer is None:
        raise UnsupportedError(
            f"device {device.name} is not this machine, and its file does not say how it is reached: write its host "
            "there under reach, or give its address, --device ssh://user@host"
        )
    if runs < 1 or threads < 0:
        raise UserError(
            f"runs {runs} and threads {threads}: give at least 1 run, and 0 (the runtime's choice) or more threads"
        )
    if not path.exists():
        raise UserError(f"{path} does not exist: give a bundle, an engine folder or a .onnx file")


def _wanted(subject: ProfiledModel, tasks: str | Sequence[str] | None) -> tuple[str, ...]:
    """The tasks to measure, by their own or their tensor's name, in the subject's order."""
    short = {name: task for task, name in (subject.heads or {}).items()}
    if isinstance(tasks, Iterable):
        tasks = [short.get(task, task) for task in ([tasks] if isinstance(tasks, str) else tasks)]
    wanted = tuple(subject.tasks) if tasks is None else check_tasks(tasks, subject.tasks)
    if len(wanted) > MOST_TASKS:
        raise UserError(
            f"{subject.name} has {len(wanted)} outputs, and each is timed alone and left out: name at most "
            f"{MOST_TASKS} of them, for example --tasks {','.join(wanted[:2])}"
        )
    return wanted
