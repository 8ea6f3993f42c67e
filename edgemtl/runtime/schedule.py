"""Tasks at rates of their own on one engine: which call runs when, and which deadlines are kept.

The model is that of real-time scheduling: a task of rate f releases a job every 1/f seconds, from time 0 on, and the
deadline of a job is its task's next release (implicit deadlines; Liu and Layland, "Scheduling Algorithms for
Multiprogramming in a Hard-Real-Time Environment", JACM 1973). A call of an engine cannot be cut short, so jobs run by
the earliest deadline first without preemption (Jeffay, Stanat and Martel, RTSS 1991). Two rules are ours: jobs that are
released at the same moment run in one call, which pays for the trunk once, and a job that has not begun when its task's
next one is released is skipped, since a newer frame makes it worthless.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import UserError, unknown_name
from edgemtl.progress import Progress, Report, silent
from edgemtl.runtime.session import Session

__all__ = ["EngineCall", "Job", "Schedule", "ScheduleRun", "TaskRun", "parse_schedule", "run_schedule"]

MAX_HZ, MAX_SECONDS = 10_000.0, 1_000_000.0
PROGRESS_SECONDS = 0.1
_RATE = re.compile(r"(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
EXAMPLE = "depth:30,semseg:10"


@dataclass(frozen=True)
class Schedule:
    """A rate in Hz for each task: above 0 and at most 10,000; raises `UserError` for another one or for no task.

    `str` writes it as `parse_schedule` reads it. Rates count as the decimals they are written as, so that 0.3 Hz is
    exactly three times 0.1 Hz and their jobs meet.
    """

    rates_hz: Mapping[str, float]

    def __post_init__(self) -> None:
        if not self.rates_hz:
            raise UserError(f"the schedule names no task: write TASK:HZ, for example {EXAMPLE}")
        for task, rate in self.rates_hz.items():
            if not 0 < rate <= MAX_HZ:
                raise UserError(f"rate {rate:g} Hz of task {task} is not above 0 and at most {MAX_HZ:g} Hz")

    def __str__(self) -> str:
        return ",".join(f"{task}:{str(float(rate)).removesuffix('.0')}" for task, rate in self.rates_hz.items())

    def period(self, task: str) -> Fraction:
        """Seconds from one release of a task to the next, exactly."""
        return 1 / Fraction(str(float(self.rates_hz[task])))

    def times(self, factor: float) -> Schedule:
        """All rates times a number above 0, exactly: jobs that met still meet."""
        exact = Fraction(str(float(factor)))
        return Schedule({task: float(exact / self.period(task)) for task in self.rates_hz})

    def releases(self, seconds: float) -> int:
        """How many jobs all tasks together release before `seconds` have passed."""
        return sum(self._count(task, seconds) for task in self.rates_hz)

    def modes(self, seconds: float) -> dict[tuple[str, ...], int]:
        """The sets of tasks that are released together before `seconds` have passed, and how often each is."""
        moments: dict[Fraction, list[str]] = defaultdict(list)
        for task in self.rates_hz:
            period = self.period(task)
            for number in range(self._count(task, seconds)):
                moments[number * period].append(task)
        return dict(Counter(map(tuple, moments.values())))

    def _count(self, task: str, seconds: float) -> int:
        _check_seconds(seconds)
        return math.ceil(Fraction(str(float(seconds))) / self.period(task))


def parse_schedule(text: str, tasks: Iterable[str]) -> Schedule:
    """Read `depth:30,semseg:10`: a rate in Hz for some of `tasks`.

    Raises `UserError` for a task that is unknown or named twice, and for a rate that is no number above 0.

    >>> str(parse_schedule("depth:30,semseg:10", ["semseg", "depth"]))
    'depth:30,semseg:10'
    """
    allowed, rates = tuple(tasks), dict[str, float]()
    for part in text.split(","):
        name, _, rate = part.strip().rpartition(":")
        if not name or not _RATE.fullmatch(rate):
            raise UserError(f"schedule {part!r} is not understood: write TASK:HZ, Hz above 0, for example {EXAMPLE}")
        if name not in allowed:
            raise unknown_name("task in schedule", name, allowed)
        if name in rates:
            raise UserError(f"schedule {text!r} names task {name} twice: give each task one rate")
        rates[name] = float(rate)
    return Schedule(rates)


@dataclass(frozen=True)
class Job:
    """One release of a task, in seconds since the schedule's start.

    It is done (it has `start_s` and `end_s`, and is `missed` where it ended after its deadline), `skipped`, or pending:
    released, but not done when the schedule ended.
    """

    release_s: float
    deadline_s: float
    skipped: bool = False
    start_s: float | None = None
    end_s: float | None = None

    @property
    def missed(self) -> bool:
        """Whether it was done, but after its deadline."""
        return self.end_s is not None and self.end_s > self.deadline_s


@dataclass(frozen=True)
class TaskRun:
    """The outcome of a task's jobs: released = done + skipped + pending; the missed ones are among the done ones."""

    rate_hz: float
    jobs: tuple[Job, ...]

    @property
    def released(self) -> int:
        """Jobs whose time came."""
        return len(self.jobs)

    @property
    def done(self) -> int:
        """Jobs that gave a result, in time or late."""
        return sum(job.end_s is not None for job in self.jobs)

    @property
    def missed(self) -> int:
        """Jobs that gave their result after their deadline."""
        return sum(job.missed for job in self.jobs)

    @property
    def skipped(self) -> int:
        """Jobs that had not begun when the task's next one was released."""
        return sum(job.skipped for job in self.jobs)

    @property
    def pending(self) -> int:
        """Jobs that were released and neither done nor skipped when the schedule ended."""
        return self.released - self.done - self.skipped

    @property
    def latencies_ms(self) -> tuple[float, ...]:
        """From release to result, of every job that was done, in their order."""
        return tuple(1000 * (job.end_s - job.release_s) for job in self.jobs if job.end_s is not None)


@dataclass(frozen=True)
class EngineCall:
    """One run of the engine, in seconds since the schedule's start."""

    start_s: float
    end_s: float
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class ScheduleRun:
    """Outcome of a schedule after `elapsed_s` seconds; `interrupted` where Ctrl-C ended it early."""

    schedule: Schedule
    tasks: Mapping[str, TaskRun]
    calls: tuple[EngineCall, ...]
    elapsed_s: float
    interrupted: bool

    @property
    def busy_share(self) -> float:
        """The share of the time that was spent in calls, 0 to 1: the utilisation of the processor."""
        return math.fsum(call.end_s - call.start_s for call in self.calls) / self.elapsed_s if self.calls else 0.0

    def achieved_hz(self, task: str) -> float:
        """Results of a task per second, late ones included."""
        return self.tasks[task].done / self.elapsed_s if self.elapsed_s > 0 else 0.0


def run_schedule(
    session: Session,
    frames: Sequence[NDArray[np.float32]],
    schedule: Schedule,
    seconds: float,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    report: Report = silent,
) -> ScheduleRun:
    """Run each task of a schedule at its rate for `seconds` (a call that began before the end is awaited).

    Whenever the engine is free, every job whose time has come is released; one that still waits when its task's next
    job is released is skipped. Of the waiting jobs that with the earliest deadline runs next (of equal ones, the one
    released first), in one call with all that were released at the same moment. With no job waiting, it sleeps until
    the next release. The i-th call reads frame i (normalised, (1, 3, H, W)), from the first again after the last. A
    job is missed where its call ends after its deadline. Ctrl-C ends the schedule early, which the result records.

    `clock` returns seconds, `sleep` waits for some. `report` gets how many jobs were released, and of those missed or
    skipped, between calls, ten times a second at most. Raises `UserError` for no frame, for `seconds` that
    are not above 0 and at most a million, for a task that the engine lacks and for a frame of another shape.
    """
    if not frames:
        raise UserError("a schedule needs at least one frame: give an image")
    _check_seconds(seconds)
    for task in schedule.rates_hz:
        if task not in session.tasks:
            raise unknown_name("task in schedule", task, session.tasks)
    loop = _Loop(schedule, clock(), seconds)
    interrupted = False
    try:
        while (now := clock()) < loop.end:
            if lanes := loop.next_call(now):
                session.run(frames[len(loop.calls) % len(frames)], tuple(lane.task for lane in lanes))
                loop.finish(lanes, now, clock())
            else:
                _wait(loop.next_event(), clock, sleep)
            if now - loop.reported >= PROGRESS_SECONDS:
                loop.reported = now
                report(loop.progress())
    except KeyboardInterrupt:
        interrupted = True
    result = loop.close(clock(), interrupted)
    report(loop.progress())
    return result


def _check_seconds(seconds: float) -> None:
    if not 0 < seconds <= MAX_SECONDS:
        raise UserError(f"a schedule cannot run for {seconds:g} seconds: give more than 0, at most {MAX_SECONDS:g}")


def _wait(until: float, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
    while (left := until - clock()) > 0:
        sleep(left)


class _Lane:
    """One task's jobs. `waiting` says that the last of them has not begun; `next_release` is a time of the clock."""

    def __init__(self, task: str, rate_hz: float, period: Fraction, start: float) -> None:
        self.task, self.rate_hz = task, rate_hz
        self.jobs: list[Job] = []
        self.waiting = False
        self.unmet = 0
        self.next_release = start
        self._period, self._start = period, start

    def release(self, now: float, end: float) -> None:
        """Release every job whose time has come by `now` and before `end`."""
        while self.next_release <= now and self.next_release < end:
            if self.waiting:
                self.jobs[-1] = replace(self.jobs[-1], skipped=True)
                self.unmet += 1
            number = len(self.jobs) + 1
            deadline = float(number * self._period)  # never a sum of periods: rounding would make the rate drift
            self.jobs.append(Job(float((number - 1) * self._period), deadline))
            self.waiting = True
            self.next_release = self._start + deadline

    def finish(self, start_s: float, end_s: float) -> None:
        """Note that the last job ran from `start_s` to `end_s`."""
        self.jobs[-1] = replace(self.jobs[-1], start_s=start_s, end_s=end_s)
        self.unmet += self.jobs[-1].missed


class _Loop:
    """The state of a schedule while it runs."""

    def __init__(self, schedule: Schedule, start: float, seconds: float) -> None:
        self.schedule, self.start, self.end = schedule, start, start + seconds
        self.lanes = [_Lane(task, hz, schedule.period(task), start) for task, hz in schedule.rates_hz.items()]
        self.calls: list[EngineCall] = []
        self.reported = start
        self.total = schedule.releases(seconds)

    def next_call(self, now: float) -> list[_Lane]:
        """The lanes whose jobs run next in one call, none where no job waits; their jobs count as begun."""
        for lane in self.lanes:
            lane.release(now, self.end)
        waiting = [lane for lane in self.lanes if lane.waiting]
        if not waiting:
            return []
        first = min(waiting, key=lambda lane: (lane.jobs[-1].deadline_s, lane.jobs[-1].release_s)).jobs[-1]
        chosen = [lane for lane in waiting if lane.jobs[-1].release_s == first.release_s]
        for lane in chosen:
            lane.waiting = False
        return chosen

    def next_event(self) -> float:
        """When, by the clock, the next job is released or the schedule ends."""
        return min(self.end, *(lane.next_release for lane in self.lanes))

    def finish(self, lanes: Sequence[_Lane], began: float, ended: float) -> None:
        """Note a call of these lanes' last jobs."""
        start_s, end_s = began - self.start, ended - self.start
        self.calls.append(EngineCall(start_s, end_s, tuple(lane.task for lane in lanes)))
        for lane in lanes:
            lane.finish(start_s, end_s)

    def progress(self) -> Progress:
        """Jobs released, of all that the schedule will release, and those of them that were missed or skipped."""
        released, unmet = sum(len(lane.jobs) for lane in self.lanes), sum(lane.unmet for lane in self.lanes)
        return Progress("jobs", released, self.total, f"{unmet} missed or skipped")

    def close(self, now: float, interrupted: bool) -> ScheduleRun:
        """Release what the last call kept from being released, and give the result."""
        for lane in self.lanes:
            lane.release(now, self.end)
        tasks = {lane.task: TaskRun(lane.rate_hz, tuple(lane.jobs)) for lane in self.lanes}
        last = self.calls[-1].end_s if self.calls else 0.0
        elapsed_s = max(last, min(now, self.end) - self.start)  # to wake up late from the last sleep costs nobody
        return ScheduleRun(self.schedule, tasks, tuple(self.calls), elapsed_s, interrupted)
