from __future__ import annotations

from pathlib import Path

import pytest

from edgemtl.profiling import Samples
from edgemtl.profiling import watch as watch_module
from edgemtl.profiling.watch import Watch


def _steady(n: int = 100, ms: float = 1.0) -> Samples:
    return Samples((ms,) * n, 0, n)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine whose counters are files of ours."""
    for cpu in ("cpu0", "cpu1"):
        folder = tmp_path / "cpu" / cpu / "thermal_throttle"
        folder.mkdir(parents=True)
        (folder / "core_throttle_count").write_text("3\n")
    monkeypatch.setattr(watch_module, "_SYS", tmp_path / "cpu")
    monkeypatch.setattr(watch_module, "_THERMAL", tmp_path / "thermal")
    monkeypatch.setattr(watch_module, "_jiffies", lambda: (0.0, 0.0))
    return tmp_path


def test_a_quiet_machine_is_stable(quiet: Path) -> None:
    with Watch() as watch:
        pass
    found = watch.stability({"all": _steady()})
    assert (found.stable, found.throttled, found.reasons, found.worst_cov) == (True, "no", (), 0.0)


def test_throttling_is_seen(quiet: Path) -> None:
    with Watch() as watch:
        (quiet / "cpu/cpu1/thermal_throttle/core_throttle_count").write_text("4\n")
    found = watch.stability({"all": _steady()})
    assert (found.stable, found.throttled) == (False, "yes")
    assert "throttled" in found.reasons[0]


def test_a_cooling_device_at_work_is_throttling(quiet: Path) -> None:
    folder = quiet / "thermal" / "cooling_device0"
    folder.mkdir(parents=True)
    (folder / "type").write_text("thermal-cpufreq-0")
    (folder / "cur_state").write_text("0")
    with Watch() as watch:
        pass
    assert watch.throttled == "no"
    with Watch() as watch:
        (folder / "cur_state").write_text("2")
    assert watch.throttled == "yes"


def test_where_nothing_tells_it_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(watch_module, "_SYS", tmp_path)
    monkeypatch.setattr(watch_module, "_THERMAL", tmp_path)
    monkeypatch.setattr(watch_module, "_jiffies", lambda: None)
    with Watch() as watch:
        pass
    found = watch.stability({"all": _steady()})
    assert (found.throttled, found.others_cpu, found.stolen_cpu) == ("unknown", None, None)


def test_other_processes_are_seen(quiet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Watch() as watch:
        monkeypatch.setattr(watch_module, "_jiffies", lambda: (1e6, 1e5))
    found = watch.stability({"all": _steady()})
    assert (found.stable, found.others_cpu, found.stolen_cpu) == (False, 1.0, 1.0)
    assert "other processes" in found.reasons[0] and "virtual machines" in found.reasons[1]


def test_spread_and_drift_are_named_with_the_worst_mode(quiet: Path) -> None:
    scattered = Samples((1.0, 1.5) * 50, 0, 100)
    drift = Samples((1.0,) * 50 + (1.08,) * 50, 0, 100)
    with Watch() as watch:
        pass
    found = watch.stability({"calm": _steady(), "spread": scattered, "drift": drift})
    assert not found.stable
    assert found.worst_cov == scattered.cov
    assert "in 1 of 3 modes, most in 'spread'" in found.reasons[0]
    assert "+8%" in found.reasons[1] and "'drift'" in found.reasons[1]


def test_kernel_counters_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    busy = watch_module._jiffies()
    if busy is not None:
        assert busy[0] > 0 and busy[1] >= 0
