"""Schedules in simulated time, against a timetable made by hand and against what must hold for any of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgemtl.errors import UserError
from edgemtl.progress import Progress
from edgemtl.runtime import OperatorTime, Schedule, ScheduleRun, parse_schedule, run_schedule

TASKS = ("depth", "semseg", "normals")
FRAMES = [np.full((1, 3, 2, 2), number, np.float32) for number in range(3)]


class Simulated:
    """A session whose calls take the time that `cost` says, and the clock and sleep that go with it."""

    def __init__(self, cost: Callable[[tuple[str, ...]], float], tasks: tuple[str, ...] = TASKS) -> None:
        self.tasks, self.cost, self.now = tasks, cost, 0.0
        self.frames: list[float] = []

    def run(self, image: NDArray[np.float32], tasks: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        self.frames.append(float(image[0, 0, 0, 0]))
        self.now += self.cost(tuple(tasks))
        return {}

    def operator_times(self, image: NDArray[np.float32], tasks: Sequence[str], runs: int) -> list[OperatorTime]:
        return []

    def close(self) -> None: ...

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def simulate(rates: Mapping[str, float], cost: Callable[[tuple[str, ...]], float], seconds: float) -> ScheduleRun:
    session = Simulated(cost, tuple(rates))
    return run_schedule(session, FRAMES, Schedule(rates), seconds, clock=session.clock, sleep=session.sleep)


def calls(run: ScheduleRun) -> list[tuple[float, float, str]]:
    return [(call.start_s, call.end_s, "".join(call.tasks)) for call in run.calls]


def counts(run: ScheduleRun, task: str) -> tuple[int, int, int, int, int]:
    found = run.tasks[task]
    return found.released, found.done, found.missed, found.skipped, found.pending


def test_a_schedule_with_room_keeps_its_timetable() -> None:
    run = simulate({"a": 8, "b": 4}, lambda tasks: {"a": 1, "b": 3, "ab": 3.5}["".join(tasks)] / 64, 0.5)
    assert calls(run) == [
        (0, 3.5 / 64, "ab"),
        (8 / 64, 9 / 64, "a"),
        (16 / 64, 19.5 / 64, "ab"),
        (24 / 64, 25 / 64, "a"),
    ]
    assert counts(run, "a") == (4, 4, 0, 0, 0) and counts(run, "b") == (2, 2, 0, 0, 0)
    assert run.tasks["a"].latencies_ms == (3500 / 64, 1000 / 64, 3500 / 64, 1000 / 64)
    assert run.elapsed_s == 0.5 and not run.interrupted
    assert run.busy_share == (3.5 + 1 + 3.5 + 1) / 32
    assert run.achieved_hz("a") == 8 and run.achieved_hz("b") == 4


def test_an_overload_misses_skips_and_runs_the_earliest_deadline_first() -> None:
    """In 1/64 s: a is released every 8, b every 32, c every 64; the first call lasts 41."""
    run = simulate(
        {"a": 8, "b": 2, "c": 1}, lambda tasks: {"abc": 41, "a": 2, "b": 8, "ab": 9, "c": 5}["".join(tasks)] / 64, 1.0
    )
    assert calls(run) == [
        (0, 41 / 64, "abc"),  # a (deadline 8) and b (32) are late, c (64) is not; a's of 8, 16, 24 and 32 are skipped
        (41 / 64, 43 / 64, "a"),  # released at 40, deadline 48: before b's, which was released at 32 and is due at 64
        (43 / 64, 51 / 64, "b"),  # in time
        (51 / 64, 53 / 64, "a"),  # released at 48, deadline 56
        (56 / 64, 58 / 64, "a"),
    ]
    assert counts(run, "a") == (8, 4, 1, 4, 0)
    assert counts(run, "b") == (2, 2, 1, 0, 0)
    assert counts(run, "c") == (1, 1, 0, 0, 0)
    assert [job.skipped for job in run.tasks["a"].jobs] == [False] + 4 * [True] + 3 * [False]
    assert run.tasks["b"].jobs[1].end_s == 51 / 64 and run.tasks["b"].latencies_ms[1] == 1000 * 19 / 64


def test_a_result_at_its_deadline_is_in_time_and_one_after_it_is_not() -> None:
    assert counts(simulate({"a": 8}, lambda _: 8 / 64, 0.5), "a") == (4, 4, 0, 0, 0)
    late = simulate({"a": 8}, lambda _: 9 / 64, 0.5)
    assert counts(late, "a") == (4, 4, 4, 0, 0)
    assert late.elapsed_s == 36 / 64 and late.busy_share == 1


def test_what_waits_at_the_end_is_pending() -> None:
    run = simulate({"a": 8, "b": 2}, lambda tasks: 40 / 64, 0.6)
    assert calls(run) == [(0, 40 / 64, "ab")]
    assert counts(run, "a") == (5, 1, 1, 3, 1) and counts(run, "b") == (2, 1, 1, 0, 1)


def test_frames_are_read_in_turns() -> None:
    session = Simulated(lambda _: 0.001)
    run_schedule(session, FRAMES, Schedule({"depth": 10}), 0.5, clock=session.clock, sleep=session.sleep)
    assert session.frames == [0, 1, 2, 0, 1]


def test_decimal_rates_meet_exactly_and_do_not_drift() -> None:
    run = simulate({"a": 0.3, "b": 0.1}, lambda _: 0.001, 1000.0)
    assert sum(len(call.tasks) == 2 for call in run.calls) == 100
    assert counts(run, "a") == (300, 300, 0, 0, 0)
    assert run.tasks["a"].jobs[297].release_s == 990.0
    assert Schedule({"a": 0.3, "b": 0.1}).modes(1000.0) == {("a", "b"): 100, ("a",): 200}


def test_ctrl_c_ends_early_and_keeps_what_ran() -> None:
    session = Simulated(lambda _: 0.01)
    run_once = session.run

    def interrupted(image: NDArray[np.float32], tasks: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        run_once(image, tasks)
        if session.now > 0.3:
            raise KeyboardInterrupt
        return {}

    session.run = interrupted  # type: ignore[method-assign]
    run = run_schedule(session, FRAMES, Schedule({"depth": 10}), 60, clock=session.clock, sleep=session.sleep)
    assert run.interrupted and run.elapsed_s == pytest.approx(0.31)
    assert counts(run, "depth") == (4, 3, 0, 0, 1)


def test_progress_is_told_ten_times_a_second_at_most() -> None:
    session, events = Simulated(lambda _: 0.005), list[Progress]()
    run = run_schedule(
        session,
        FRAMES,
        Schedule({"depth": 100, "semseg": 2}),
        2.0,
        clock=session.clock,
        sleep=session.sleep,
        report=events.append,
    )
    released = [progress.done for progress in events]
    assert 15 < len(events) <= 21 and released == sorted(released)
    unmet = sum(each.missed + each.skipped for each in run.tasks.values())
    assert events[-1] == Progress("jobs", 204, 204, f"{unmet} missed or skipped")


TENTHS = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 400), min_size=1)


@settings(deadline=None, max_examples=150)
@given(TENTHS, st.lists(st.floats(0.0005, 0.3), min_size=4, max_size=4), st.integers(10, 300))
def test_what_holds_for_any_schedule(tenths: dict[str, int], costs: list[float], hundredths: int) -> None:
    own = dict(zip("abcd", costs, strict=True))
    rates = {task: tenth / 10 for task, tenth in tenths.items()}
    run = simulate(rates, lambda tasks: 0.7 * sum(own[task] for task in tasks), hundredths / 100)
    assert run.busy_share <= 1 + 1e-9
    assert all(before.end_s <= after.start_s for before, after in pairwise(run.calls))
    assert sum(len(call.tasks) for call in run.calls) == sum(each.done for each in run.tasks.values())
    for task, found in run.tasks.items():
        released, done, missed, skipped, pending = counts(run, task)
        assert released == done + skipped + pending and missed <= done and pending <= 1
        assert released == -(-tenths[task] * hundredths // 1000)
        assert all(job.start_s >= job.release_s for job in found.jobs if job.start_s is not None)
        assert all(job.start_s < job.deadline_s for job in found.jobs if job.start_s is not None)
    assert run.schedule.releases(hundredths / 100) == sum(each.released for each in run.tasks.values())
    for call in run.calls:
        _check_choice(run, call.start_s, call.tasks)


def _check_choice(run: ScheduleRun, start_s: float, tasks: tuple[str, ...]) -> None:
    """Of the jobs that could have run at `start_s`, these were released together and none was due earlier."""
    able = {
        (task, job)
        for task, found in run.tasks.items()
        for job in found.jobs
        if job.release_s <= start_s < job.deadline_s and (job.start_s is None or job.start_s >= start_s)
    }
    chosen = {(task, job) for task, job in able if job.start_s == start_s}
    assert {task for task, _ in chosen} == set(tasks)
    assert len({job.release_s for _, job in chosen}) == 1
    moment = next(iter(chosen))[1].release_s
    assert chosen == {(task, job) for task, job in able if job.release_s == moment}
    assert min(job.deadline_s for _, job in chosen) == min(job.deadline_s for _, job in able)


NAMES = st.text(st.characters(exclude_characters=",", exclude_categories=["Z", "C"]), min_size=1, max_size=8)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(NAMES, st.floats(0, 10_000, exclude_min=True), min_size=1, max_size=4))
def test_a_schedule_is_read_as_it_is_written(rates: dict[str, float]) -> None:
    schedule = Schedule(rates)
    assert parse_schedule(str(schedule), rates) == schedule


def test_a_schedule_is_written_as_people_write_it() -> None:
    assert str(parse_schedule("depth:30, semseg:.50", TASKS)) == "depth:30,semseg:0.5"
    assert str(parse_schedule("depth:30,semseg:10", TASKS).times(0.769)) == "depth:23.07,semseg:7.69"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "TASK:HZ"),
        ("depth", "TASK:HZ"),
        ("depth:", "TASK:HZ"),
        (":30", "TASK:HZ"),
        ("depth:30,", "TASK:HZ"),
        ("depth:-3", "TASK:HZ"),
        ("depth:nan", "TASK:HZ"),
        ("depth:inf", "TASK:HZ"),
        ("depth:30Hz", "TASK:HZ"),
        ("depth=30", "TASK:HZ"),
        ("depth:0", "not above 0"),
        ("depth:1e999", "not above 0 and at most"),
        ("depth:10001", "at most 10000 Hz"),
        ("dept:30", "did you mean depth"),
        ("depth:30,depth:10", "names task depth twice"),
    ],
)
def test_a_schedule_that_cannot_be_read_is_one_line(text: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        parse_schedule(text, TASKS)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"frames": []}, "at least one frame"),
        ({"seconds": 0}, "0 seconds"),
        ({"seconds": math.nan}, "nan seconds"),
        ({"seconds": math.inf}, "inf seconds"),
        ({"schedule": Schedule({"dept": 3})}, "did you mean depth"),
    ],
)
def test_a_schedule_that_cannot_run_is_refused_before_it_starts(change: dict[str, Any], reason: str) -> None:
    session = Simulated(lambda _: 0.01)
    given = {"frames": FRAMES, "schedule": Schedule({"depth": 3}), "seconds": 1.0} | change
    with pytest.raises(UserError, match=reason):
        run_schedule(session, **given, clock=session.clock, sleep=session.sleep)
    assert not session.frames
    with pytest.raises(UserError, match="names no task"):
        Schedule({})
