from __future__ import annotations

import gc
import itertools
from functools import partial
from time import sleep

import pytest

from edgemtl.errors import UserError
from edgemtl.profiling import compare, measure, no_collection


def test_measure_counts_warm_up_and_runs() -> None:
    calls: list[bool] = []
    samples = measure(lambda: calls.append(gc.isenabled()), runs=30, warmup=7)
    assert len(calls) == 37
    assert (len(samples.samples_ms), samples.warmup) == (30, 7)
    assert not any(calls)
    assert gc.isenabled()


def test_measure_is_in_milliseconds() -> None:
    assert measure(lambda: sleep(0.005), runs=3, warmup=0).median_ms >= 5


def test_measure_is_in_milliseconds_of_a_clock_that_counts_nanoseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count(0, 5_000_000)
    monkeypatch.setattr("edgemtl.profiling.turns.perf_counter_ns", lambda: next(now))
    assert measure(int, runs=3, warmup=0).samples_ms == (5, 5, 5)


def test_compare_goes_forwards_then_backwards() -> None:
    order: list[str] = []
    samples = compare({name: partial(order.append, name) for name in "ABC"}, rounds=2, burst=1, settle=0, warmup=0)
    assert "".join(order) == "ABCCBA" * 2
    assert {name: len(each.samples_ms) for name, each in samples.items()} == {"A": 4, "B": 4, "C": 4}


def test_compare_settles_before_every_visit_and_says_so() -> None:
    order: list[str] = []
    samples = compare({"A": lambda: order.append("A"), "B": lambda: order.append("B")}, 3, burst=4, settle=2, warmup=5)
    assert order.count("A") == 5 + 3 * 2 * (2 + 4)
    assert "".join(order[10:]) == ("A" * 6 + "B" * 12 + "A" * 6) * 3
    assert (samples["A"].warmup, samples["A"].visit, len(samples["A"].samples_ms)) == (5 + 12, 4, 24)


def test_compare_cancels_a_linear_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two equal calls on a machine that slows down steadily, by a clock of our own."""
    now = [0]

    def call() -> None:
        now[0] += 1_000_000 + now[0] // 1000

    monkeypatch.setattr("edgemtl.profiling.turns.perf_counter_ns", lambda: now[0])
    turns = compare({"A": call, "B": call}, rounds=10, burst=5, settle=0, warmup=0)
    assert turns["A"].mean_ms == pytest.approx(turns["B"].mean_ms, rel=1e-3)
    first, second = measure(call, runs=100, warmup=0), measure(call, runs=100, warmup=0)
    assert second.mean_ms > 1.05 * first.mean_ms


def test_progress_is_told_to_the_end() -> None:
    heard: list[tuple[int, int]] = []
    compare({"A": int, "B": int}, 2, burst=3, report=lambda news: heard.append((news.done, news.total)))
    assert heard[-1] == (24, 24)
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)


def test_the_collector_comes_back_after_an_error() -> None:
    def fail() -> None:
        raise RuntimeError("engine gone")

    with pytest.raises(RuntimeError, match="engine gone"):
        measure(fail, runs=1)
    assert gc.isenabled()


def test_timings_that_belong_together_collect_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(gc, "collect", lambda *generation: calls.append(1))
    with no_collection():
        for _ in range(3):
            measure(int, runs=1, warmup=0)
            assert not gc.isenabled(), "it rests to the end of the block"
    assert gc.isenabled() and len(calls) == 1


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(UserError, match="runs is 0"):
        measure(int, runs=0)
    with pytest.raises(UserError, match="no call"):
        compare({})
