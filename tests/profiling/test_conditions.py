"""The state of a machine in one line, out of profiles as they stand in files."""

from __future__ import annotations

from typing import Any

import pytest
from report_data import profile_content

from edgemtl.profiling import Profile, conditions_of

ORIN = {
    "model": "NVIDIA Jetson Orin Nano Developer Kit",
    "power_mode": "15W",
    "clocks_mhz": {"cpu0": 1510.4, "cpu1": 729.6, "17000000.gpu": 624.75, "emc": 2133.0},
    "temperatures_c": {"cpu-thermal": 48.5, "gpu-thermal": 47.0},
}
HOTTER = {**ORIN, "clocks_mhz": {**ORIN["clocks_mhz"], "cpu1": 1510.4}, "temperatures_c": {"tj-thermal": 51.25}}  # type: ignore[dict-item]


def profile_of(sensors: object, throttled: str = "no") -> Profile:
    content = profile_content()
    content["stability"]["throttled"] = throttled
    return Profile.model_validate({**content, "environment": {"sensors": sensors}})


def test_a_jetson_tells_its_mode_clocks_heat_and_whether_it_was_throttled() -> None:
    line = conditions_of(profile_of({"before": ORIN, "after": HOTTER}))
    assert line == (
        "NVIDIA Jetson Orin Nano Developer Kit; power mode 15W; MHz: cores 730 to 1510, 17000000.gpu 625, emc 2133; "
        "up to 51.2 °C (tj-thermal); not throttled"
    )


def test_a_power_mode_that_changed_meanwhile_is_two() -> None:
    line = conditions_of(profile_of({"before": ORIN, "after": {**ORIN, "power_mode": "MAXN"}}, "yes"))
    assert "power mode 15W; power mode MAXN;" in line and line.endswith("; throttled")


@pytest.mark.parametrize(
    "sensors",
    [
        None,
        7,
        {},
        {"before": [], "after": "hot"},
        {"before": {"clocks_mhz": 3, "temperatures_c": {"zone": "hot"}}, "after": {"clocks_mhz": {"cpu0": None}}},
    ],
)
def test_a_machine_that_tells_nothing_has_no_clocks(sensors: Any) -> None:
    assert conditions_of(profile_of(sensors, "unknown")) == "throttling is not known"
