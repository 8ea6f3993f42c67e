"""Timing calls: one alone, or several interleaved, so that disturbances of the machine affect them all alike."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter_ns

from edgemtl.errors import UserError
from edgemtl.profiling.samples import Samples
from edgemtl.progress import Progress, Report, silent

__all__ = ["Call", "compare", "measure"]

Call = Callable[[], object]
"""Called with how many samples are drawn and how many will be, never while the clock runs."""


def measure(call: Call, *, runs: int = 200, warmup: int = 20) -> Samples:
    """Time `runs` calls one by one, after `warmup` calls that are not timed.

    The clock is the monotonic one, in nanoseconds. Python's garbage collector rests meanwhile, as in `timeit`.

    >>> samples = measure(lambda: sum(range(1000)), runs=10, warmup=2)
    >>> len(samples.samples_ms), samples.warmup
    (10, 2)
    """
    _positive("runs", runs)
    with _no_collection():
        for _ in range(warmup):
            call()
        return Samples(tuple(_timed(call, runs)), warmup, runs)


def compare(
    calls: Mapping[str, Call],
    rounds: int = 10,
    *,
    burst: int = 10,
    settle: int = 2,
    warmup: int = 20,
    report: Report = silent,
) -> dict[str, Samples]:
    """Time several calls in turns: every round visits them forwards, then backwards (A B B A).

    A drift of clock or temperature that is linear over a round thus affects all alike. A visit draws `burst` samples
    after `settle` untimed calls, which refill the caches and let the previous runtime's spinning threads fall asleep;
    `settle` calls count as warm-up in the samples. Each call gets 2 * rounds * burst samples.

    >>> samples = compare({"short": lambda: sum(range(10)), "long": lambda: sum(range(10_000))}, rounds=2)
    >>> samples["short"].median_ms < samples["long"].median_ms
    True
    """
    for name, value in (("rounds", rounds), ("burst", burst)):
        _positive(name, value)
    if not calls:
        raise UserError("compare was given no call: name at least one")
    drawn: dict[str, list[float]] = {name: [] for name in calls}
    total = 2 * rounds * burst * len(calls)
    with _no_collection():
        for call in calls.values():
            for _ in range(warmup):
                call()
        for _ in range(rounds):
            for name in (*calls, *reversed(tuple(calls))):
                for _ in range(settle):
                    calls[name]()
                drawn[name] += _timed(calls[name], burst)
                report(Progress("samples", sum(map(len, drawn.values())), total))
    return {name: Samples(tuple(samples), warmup + 2 * rounds * settle, burst) for name, samples in drawn.items()}


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
def _no_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
