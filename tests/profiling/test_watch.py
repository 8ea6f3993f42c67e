from __future__ import annotations

from pathlib import Path

import pytest

from edgemtl.profiling import Samples
from edgemtl.profiling.stability import judge_stability, unwatched
from edgemtl.profiling.watch import Disturbance, Watch

JIFFIES = "cpu {user} 0 0 1000 0 0 0 {stolen}\n"


def steady(n: int = 100, ms: float = 1.0) -> Samples:
    return Samples((ms,) * n, 0, n)


def put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def quiet(tmp_path: Path) -> Path:
    """A machine whose counters are files of ours."""
    for cpu in ("cpu0", "cpu1"):
        put(tmp_path / f"sys/devices/system/cpu/{cpu}/thermal_throttle/core_throttle_count", "3\n")
    put(tmp_path / "proc/stat", JIFFIES.format(user=0, stolen=0))
    return tmp_path


def test_a_quiet_machine_is_stable(quiet: Path) -> None:
    with Watch(quiet) as watch:
        pass
    verdict = judge_stability({"all": steady()}, watch.disturbance)
    assert (verdict.stable, verdict.throttled, verdict.reasons, verdict.worst_cov) == (True, "no", (), 0.0)


def test_throttling_is_seen(quiet: Path) -> None:
    with Watch(quiet) as watch:
        put(quiet / "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count", "4\n")
    verdict = judge_stability({"all": steady()}, watch.disturbance)
    assert (verdict.stable, verdict.throttled) == (False, "yes")
    assert "throttled" in verdict.reasons[0]


def test_the_supply_monitor_of_a_jetson_throttles_too(tmp_path: Path) -> None:
    put(tmp_path / "sys/class/hwmon/hwmon1/oc3_event_cnt", "0\n")
    with Watch(tmp_path) as watch:
        pass
    assert watch.disturbance.throttled == "no"
    with Watch(tmp_path) as watch:
        put(tmp_path / "sys/class/hwmon/hwmon1/oc3_event_cnt", "2\n")
    assert watch.disturbance.throttled == "yes"


def test_a_cooling_device_at_work_is_throttling(quiet: Path) -> None:
    device = quiet / "sys/class/thermal/cooling_device0"
    put(device / "type", "thermal-cpufreq-0")
    put(device / "cur_state", "0")
    with Watch(quiet) as watch:
        pass
    assert watch.disturbance.throttled == "no"
    with Watch(quiet) as watch:
        put(device / "cur_state", "2")
    assert watch.disturbance.throttled == "yes"


@pytest.mark.parametrize(
    ("before", "after", "throttled"),
    [
        ("0", "0", "no"),
        ("50000", "50000", "no"),  # it was, before anybody measured
        ("0", "4", "yes"),
        ("2", "0", "yes"),
        ("50000", "0xd0000", "yes"),  # a limit of temperature, begun and over meanwhile
        ("0", "50001", "yes"),
        ("0", "10001", "no"),  # the supply fell, and nothing was slowed
        ("nonsense", "4", "unknown"),
    ],
)
def test_the_firmware_of_a_raspberry_pi_says_what_it_slows(
    tmp_path: Path, before: str, after: str, throttled: str
) -> None:
    bits = tmp_path / "sys/devices/platform/soc/soc:firmware/get_throttled"
    put(bits, f"{before}\n")
    with Watch(tmp_path) as watch:
        put(bits, f"{after}\n")
    assert watch.disturbance.throttled == throttled


def test_where_nothing_tells_it_is_unknown(tmp_path: Path) -> None:
    with Watch(tmp_path) as watch:
        pass
    verdict = judge_stability({"all": steady()}, watch.disturbance)
    assert (verdict.throttled, verdict.others_cpu, verdict.stolen_cpu) == ("unknown", None, None)


def test_other_processes_are_seen(quiet: Path) -> None:
    with Watch(quiet) as watch:
        put(quiet / "proc/stat", JIFFIES.format(user=10**8, stolen=10**7))
    verdict = judge_stability({"all": steady()}, watch.disturbance)
    assert (verdict.stable, verdict.others_cpu, verdict.stolen_cpu) == (False, 1.0, 1.0)
    assert "other processes" in verdict.reasons[0] and "virtual machines" in verdict.reasons[1]


def test_spread_and_drift_are_named_with_the_worst_mode() -> None:
    calm = Disturbance("no", 0.0, 0.0, 0.0, {})
    scattered = Samples((1.0, 1.5) * 50, 0, 100)
    drift = Samples((1.0,) * 50 + (1.08,) * 50, 0, 100)
    verdict = judge_stability({"calm": steady(), "spread": scattered, "drift": drift}, calm)
    assert not verdict.stable
    assert verdict.worst_cov == scattered.cov
    assert "in 1 of 3 modes, most in 'spread'" in verdict.reasons[0]
    assert "+8%" in verdict.reasons[1] and "'drift'" in verdict.reasons[1]


def test_what_nothing_watched_is_not_certified() -> None:
    verdict = unwatched({"all": steady()})
    assert not verdict.stable and "nothing watched" in verdict.reasons[0]


def test_this_machine_is_read() -> None:
    with Watch() as watch:
        pass
    seen = watch.disturbance
    assert seen.others_cpu is None or 0 <= seen.others_cpu <= 1
    assert set(seen.sensors) == {"before", "after"}
