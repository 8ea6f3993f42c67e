from __future__ import annotations

import time

import pytest
from search_time import StageClock

from edgemtl.progress import Progress


def test_time_goes_to_the_stage_whose_event_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 2.0, 3.0, 5.5, 9.0, 9.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    clock = StageClock()
    for stage in ("validation images", "test images", "search", "search"):
        clock(Progress(stage, 1, 2))
    clock.charge("scoring")
    assert clock.seconds == {"images": 3.0, "evaluations": 6.0, "scoring": 0.5}
