from __future__ import annotations

from pathlib import Path

import pytest

from edgemtl.profiling.sensors import read_sensors

JETSON = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n# more\n",
    "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1728000\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "1020000000\n",
    "sys/kernel/debug/bpmp/debug/clk/emc/rate": "3199000000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "51250\n",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "unreadable\n",
    "sys/class/thermal/thermal_zone10/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone10/temp": "-500\n",
}
RASPBERRY = {
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2400000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "60050\n",
}


def board(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_jetson_tells_its_release_mode_clocks_and_temperatures(tmp_path: Path) -> None:
    assert read_sensors(board(tmp_path, JETSON)) == {
        "model": "NVIDIA Jetson Orin Nano Developer Kit",
        "release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic",
        "power_mode": "MAXN_SUPER",
        "clocks_mhz": {"cpu0": 1728.0, "17000000.gpu": 1020.0, "emc": 3199.0},
        "temperatures_c": {"cpu-thermal": 51.25, "cpu-thermal (10)": -0.5},
    }


def test_what_a_board_lacks_is_left_out(tmp_path: Path) -> None:
    assert read_sensors(board(tmp_path / "pi", RASPBERRY)) == {
        "model": "Raspberry Pi 5 Model B Rev 1.0",
        "clocks_mhz": {"cpu0": 2400.0},
        "temperatures_c": {"cpu-thermal": 60.05},
    }
    assert read_sensors(tmp_path / "nothing") == {}


@pytest.mark.parametrize(("table", "mode"), [("", "2"), ("< POWER_MODEL ID=0 NAME=15W >", "2")])
def test_a_power_mode_without_a_name_is_its_number(tmp_path: Path, table: str, mode: str) -> None:
    root = board(tmp_path, {"var/lib/nvpmodel/status": "pmode:0002", "etc/nvpmodel.conf": table})
    assert read_sensors(root) == {"power_mode": mode}
