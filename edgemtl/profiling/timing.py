"""Timing calls: one alone, or several interleaved, so that disturbances of the machine affect them all alike."""

from __future__ import annotations

from collections.abc import Mapping

from edgemtl.profiling.samples import Samples
from edgemtl.profiling.turns import Call, draw_alone, draw_in_turns, untimed_calls
from edgemtl.progress import Report, silent

__all__ = ["Call", "compare", "measure"]


def measure(call: Call, *, runs: int = 200, warmup: int = 20) -> Samples:
    """Time `runs` calls one by one, after `warmup` calls that are not timed.

    The clock is the monotonic one, in nanoseconds. Python's garbage collector rests meanwhile, as in `timeit`.

    >>> samples = measure(lambda: sum(range(1000)), runs=10, warmup=2)
    >>> len(samples.samples_ms), samples.warmup
    (10, 2)
    """
    return Samples(tuple(draw_alone(call, runs, warmup)), warmup, runs)


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
    drawn = draw_in_turns(calls, rounds, burst=burst, settle=settle, warmup=warmup, report=report)
    return {name: Samples(tuple(ms), untimed_calls(rounds, settle, warmup), burst) for name, ms in drawn.items()}
