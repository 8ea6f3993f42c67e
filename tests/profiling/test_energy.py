"""Energy on trees of files as each board has them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgemtl.profiling.consumption import energy_of
from edgemtl.profiling.energy import (
    FEWEST_READINGS,
    IDLE,
    PERIOD_S,
    TOO_FEW,
    EnergyVoid,
    draw_energy,
    integrate,
    reading_rate,
)
from edgemtl.profiling.rails import find_rails

PACKAGE = "sys/class/powercap/intel-rapl:0"
ORIN = "sys/class/hwmon/hwmon1"
BOARDS = {
    "Intel": (
        {
            f"{PACKAGE}/name": "package-0", f"{PACKAGE}/energy_uj": "5", f"{PACKAGE}/max_energy_range_uj": "1000",
            "sys/class/powercap/intel-rapl:0:0/name": "core", "sys/class/powercap/intel-rapl:0:0/energy_uj": "3",
            "sys/class/powercap/intel-rapl:0:1/name": "dram", "sys/class/powercap/intel-rapl:0:1/energy_uj": "2",
            "sys/class/powercap/intel-rapl:1/name": "psys", "sys/class/powercap/intel-rapl:1/energy_uj": "9",
            "sys/class/powercap/intel-rapl-mmio:0/name": "package-0",
            "sys/class/powercap/intel-rapl-mmio:0/energy_uj": "5",
        },
        [("package-0", 5.0), ("package-0 dram", 2.0)],
    ),
    "an Intel whose first tree tells nothing": (
        {
            f"{PACKAGE}/name": "package-0", f"{PACKAGE}/energy_uj": "",
            "sys/class/powercap/intel-rapl-mmio:0/name": "package-0",
            "sys/class/powercap/intel-rapl-mmio:0/energy_uj": "7",
        },
        [("package-0", 7.0)],
    ),
    "Jetson Orin": (
        {
            f"{ORIN}/name": "ina3221", f"{ORIN}/in1_label": "VDD_IN", f"{ORIN}/in1_input": "5000",
            f"{ORIN}/curr1_input": "1200", f"{ORIN}/in2_label": "VDD_CPU_GPU_CV", f"{ORIN}/in2_input": "5000",
            f"{ORIN}/curr2_input": "200",
        },
        [("VDD_IN", 6.0)],
    ),
    "Jetson AGX Orin": (
        {
            f"{ORIN}/name": "ina3221", f"{ORIN}/in1_label": "VDD_GPU_SOC", f"{ORIN}/in1_input": "20000",
            f"{ORIN}/curr1_input": "100", f"{ORIN}/in2_label": "NC", f"{ORIN}/in2_input": "0",
            f"{ORIN}/curr2_input": "0",
            f"{ORIN}/in3_label": "VDD_CPU_CV", f"{ORIN}/in3_input": "20000", f"{ORIN}/curr3_input": "50",
        },
        [("VDD_GPU_SOC", 2.0), ("VDD_CPU_CV", 1.0)],
    ),
    "Jetson Thor": (
        {f"{ORIN}/name": "ina238", f"{ORIN}/label": "VIN", f"{ORIN}/power1_input": "30000000"},
        [("VIN", 30.0)],
    ),
    "ZCU102": (
        {
            f"{ORIN}/name": "ina226_u76", f"{ORIN}/in1_input": "7", f"{ORIN}/in2_input": "848",
            f"{ORIN}/curr1_input": "1500", f"{ORIN}/power1_input": "1272",
            "sys/class/hwmon/hwmon2/name": "ina226_u79", "sys/class/hwmon/hwmon2/in2_input": "850",
            "sys/class/hwmon/hwmon2/curr1_input": "2000", "sys/class/hwmon/hwmon3/name": "ina226_u80",
        },
        [("ina226 u76", 1.272), ("ina226 u79", 1.7)],
    ),
    "JetPack 4": (
        {
            "sys/bus/i2c/drivers/ina3221x/7-0040/iio:device0/rail_name_0": "POM_5V_IN",
            "sys/bus/i2c/drivers/ina3221x/7-0040/iio:device0/in_power0_input": "2500",
            "sys/bus/i2c/drivers/ina3221x/7-0040/iio:device0/rail_name_1": "POM_5V_GPU",
            "sys/bus/i2c/drivers/ina3221x/7-0040/iio:device0/in_power1_input": "40",
        },
        [("POM_5V_IN", 2.5)],
    ),
}  # fmt: skip


def board(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize("name", list(BOARDS))
def test_the_rails_of_each_board(name: str, tmp_path: Path) -> None:
    files, expected = BOARDS[name]
    rails, reason = find_rails(board(tmp_path, files))
    assert [(rail.name, rail.read()) for rail in rails] == [(each, pytest.approx(value)) for each, value in expected]
    assert reason == ""


def test_a_board_without_sensors_says_so_and_is_not_zero(tmp_path: Path) -> None:
    drawn = draw_energy({"all": lambda: None}, root=tmp_path)
    assert energy_of(drawn, {"all": ("depth",)}) == (
        None,
        "it has no energy counter and no power monitor that is known",
    )


def test_counters_of_root_alone_are_said_to_be(tmp_path: Path) -> None:
    root = board(tmp_path, {f"{PACKAGE}/name": "package-0", f"{PACKAGE}/energy_uj": ""})
    assert "sudo chmod" in find_rails(root)[1]


def counting(root: Path, uj: int, limit: int) -> Callable[[], None]:
    """A call that takes that many uJ, by the counter of a board, which starts anew at a limit."""
    file = root / PACKAGE / "energy_uj"

    def call() -> None:
        time.sleep(0.002)
        file.write_text(str((int(file.read_text()) + uj) % limit))

    return call


def test_what_a_call_takes_is_what_the_counter_says(tmp_path: Path) -> None:
    limit = 10**6
    files = {"name": "package-0", "energy_uj": str(limit - 100), "max_energy_range_uj": str(limit)}
    root = board(tmp_path, {f"{PACKAGE}/{name}": text for name, text in files.items()})
    calls = {
        "all tasks": counting(root, 900, limit),
        "only a": counting(root, 400, limit),
        "only b": counting(root, 600, limit),
    }
    drawn = draw_energy(calls, visit_s=0.05, rounds=2, root=root)
    energy, reason = energy_of(drawn, {"all tasks": ("a", "b"), "only a": ("a",), "only b": ("b",)})
    assert energy is not None and reason == ""
    assert {name: figure.mj for name, figure in energy.modes.items()} == pytest.approx(
        {"all tasks": 0.9, "only a": 0.4, "only b": 0.6}
    )
    assert {name: figure.mj for name, figure in energy.marginal.items()} == pytest.approx({"a": 0.3, "b": 0.5})
    assert (energy.idle_w, energy.rate_hz, energy.rails) == (0, None, ("package-0",))
    assert len(energy.visits[IDLE]) == len(energy.visits["only a"]) == 4


def test_idling_is_taken_off() -> None:
    drawn = {"rails": ["x"], "rate_hz": None, "visits": {IDLE: [[2, 4, 1], [2, 4, 1]], "all": [[1, 5, 10], [1, 7, 10]]}}
    energy, _ = energy_of(drawn, {"all": ("a",)})
    assert energy is not None and energy.idle_w == 2
    assert energy.modes["all"].mj == pytest.approx(400)
    assert energy.modes["all"].uncertainty_mj == pytest.approx(100)
    assert energy.marginal == {}


def test_power_is_integrated_between_the_readings_that_came() -> None:
    """A ramp of 1 W a second, read at uneven times: trapezoids are exact, the first and last reading hold outside."""
    seconds = [0.0, 0.5, 0.75, 1.0, 1.25, 2.0, 2.5, 3.0, 3.25, 3.5, 4.5, 5.0]
    readings = [(round(1e9 * each), each) for each in seconds]
    assert integrate(readings, 400_000_000, 4_600_000_000) == pytest.approx(
        0.1 * 0.5 + (4.5**2 - 0.5**2) / 2 + 0.1 * 4.5
    )
    assert reading_rate(readings) == pytest.approx(11 / 5)
    with pytest.raises(EnergyVoid, match="read it 9 times in a loop: 10 are needed"):
        integrate(readings, 600_000_000, 4_600_000_000)


def test_power_is_integrated_at_the_rate_that_was_achieved(tmp_path: Path) -> None:
    """However slow the machine is, loops are made long enough for the readings that count."""
    root = board(tmp_path, BOARDS["Jetson Orin"][0])
    for seconds in (0.25, 1.0, 4.0, 16.0):
        drawn = draw_energy({"all": lambda: time.sleep(0.01)}, visit_s=seconds, rounds=1, root=root)
        if not drawn.get("reason", "").startswith(TOO_FEW):
            break
    assert drawn["rails"] == ["VDD_IN"]
    assert FEWEST_READINGS / 16 < drawn["rate_hz"] <= 1 / PERIOD_S
    for seconds, joules, _ in (*drawn["visits"][IDLE], *drawn["visits"]["all"]):
        assert joules == pytest.approx(6.0 * seconds)


def test_a_watcher_that_dies_voids_the_figure(tmp_path: Path) -> None:
    root = board(tmp_path, BOARDS["Jetson Orin"][0])

    def call() -> None:
        (root / ORIN / "curr1_input").unlink(missing_ok=True)
        time.sleep(0.05)

    drawn = draw_energy({"all": call}, visit_s=0.2, rounds=1, root=root)
    energy, reason = energy_of(drawn, {"all": ("a",)})
    assert energy is None
    assert reason.startswith("what watched the power")


def test_a_counter_that_falls_voids_the_figure(tmp_path: Path) -> None:
    root = board(tmp_path, {f"{PACKAGE}/name": "package-0", f"{PACKAGE}/energy_uj": "1000"})
    drawn = draw_energy({"all": counting(root, 0, 1)}, visit_s=0.01, rounds=1, root=root)
    assert drawn == {"reason": "the counter of package-0 fell, and nothing says where it starts anew"}
