from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from edgemtl.profiling import Demand, measure_demand
from edgemtl.runtime import OperatorTime, Schedule

FRAME = np.zeros((1, 3, 2, 2), np.float32)


class Timed:
    """A session that takes 2 ms for its trunk and 1 ms for each task, by a clock of its own."""

    tasks = ("depth", "semseg")
    now_ns = 0

    def run(self, image: NDArray[np.float32], tasks: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        self.now_ns += 2_000_000 + 1_000_000 * len(tasks)
        return {}

    def operator_times(self, image: NDArray[np.float32], tasks: Sequence[str], runs: int) -> list[OperatorTime]:
        return []

    def close(self) -> None: ...


def test_demand_is_the_time_of_every_call_that_the_schedule_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Timed()
    monkeypatch.setattr("edgemtl.profiling.turns.perf_counter_ns", lambda: session.now_ns)
    found = measure_demand(session, FRAME, Schedule({"depth": 20, "semseg": 10}), 5.0)
    assert found.call_ms == {("depth", "semseg"): 4, ("depth",): 3}
    assert found.utilisation == pytest.approx((10 * 4 + 10 * 3) / 1000)
    assert found.objection() is None


def test_a_schedule_beyond_the_engine_is_told_with_what_could_be_kept() -> None:
    found = Demand(Schedule({"depth": 30, "semseg": 10}), {}, 1.3)
    line = found.objection()
    assert line is not None and "\n" not in line
    assert line.startswith("the schedule asks for 130% of this engine's time and cannot be kept")
    assert line.endswith("at most depth:23.07,semseg:7.69 could be")
    kept = found.keepable(0.5)
    assert str(kept) == "depth:11.52,semseg:3.84"
    assert kept.modes(100.0).keys() == found.schedule.modes(100.0).keys(), "jobs that met still meet"


@pytest.mark.parametrize("utilisation", [0.0123456, 0.5, 1.0, 1.0001, 99.99, 12345.0])
def test_what_could_be_kept_is_never_more_than_the_engine_gives(utilisation: float) -> None:
    kept = Demand(Schedule({"depth": 3}), {}, utilisation).keepable()
    assert 0.99 < kept.rates_hz["depth"] * utilisation / 3 <= 1


def test_a_call_that_is_longer_than_its_own_period_is_told() -> None:
    calls = {("depth",): 5.0, ("depth", "semseg"): 40.0}
    line = Demand(Schedule({"depth": 30, "semseg": 1}), calls, 0.2).objection()
    assert line is not None and line.startswith("a call of depth+semseg takes 40 ms, longer than the 33.3 ms")
    assert Demand(Schedule({"depth": 20, "semseg": 1}), calls, 0.2).objection() is None
