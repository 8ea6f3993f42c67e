"""The clock: calls timed one by one, one alone or several in turns. The agent runs it on boards (Python 3.8)."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter_ns
from typing import Callable

from edgemtl.errors import UserError
from edgemtl.progress import Progress, Report, silent

__all__ = ["Call", "draw_alone", "draw_in_turns", "no_collection", "untimed_calls"]

Call = Callable[[], object]


def draw_alone(call: Call, runs: int, warmup: int) -> list[float]:
    """Latencies in ms of `runs` calls, one after another, after `warmup` calls that are not timed."""
    _positive("runs", runs)
    with no_collection():
        for _ in range(warmup):
            call()
        return _timed(call, runs)


def draw_in_turns(
    calls: Mapping[str, Call],
    rounds: int,
    *,
    burst: int,
    settle: int,
    warmup: int,
    report: Report = silent,
) -> dict[str, list[float]]:
    """Latencies in ms of several calls, 2 * rounds * burst each: every round visits them forwards, then backwards.

    A visit draws `burst` samples after `settle` calls that are not timed; all are called `warmup` times before the
    first. `report` is called with how many samples are drawn, never while the clock runs.
    """
    for name, value in (("rounds", rounds), ("burst", burst)):
        _positive(name, value)
    if not calls:
        raise UserError("compare was given no call: name at least one")
    drawn: dict[str, list[float]] = {name: [] for name in calls}
    total = 2 * rounds * burst * len(calls)
    with no_collection():
        for call in calls.values():
            for _ in range(warmup):
                call()
        for _ in range(rounds):
            for name in (*calls, *reversed(tuple(calls))):
                for _ in range(settle):
                    calls[name]()
                drawn[name] += _timed(calls[name], burst)
                report(Progress("samples", sum(map(len, drawn.values())), total))
    return drawn


def untimed_calls(rounds: int, settle: int, warmup: int) -> int:
    """The calls of each that `draw_in_turns` makes and does not time."""
    return warmup + 2 * rounds * settle


def _timed(call: Call, runs: int) -> list[float]:
    stamps = [0] * runs
    for index in range(runs):
        start = perf_counter_ns()
        call()
        stamps[index] = perf_counter_ns() - start
    return [stamp / 1e6 for stamp in stamps]


def _positive(name: str, value: int) -> None:
    if value < 1:
        raise UserError(f"{name} is {value}: at least 1 is needed to measure anything")


@contextmanager
def no_collection() -> Iterator[None]:
    """Let Python's garbage collector rest while the block runs; what it would free is freed before.

    To look through everything takes a process that has loaded torch a fifth of a second: timings that belong together
    stand in one such block, in which each finds the collector at rest.
    """
    if not gc.isenabled():
        yield
        return
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
