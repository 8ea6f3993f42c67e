"""Sensors of a board, read from its files: model, release, power mode, clocks, temperatures. No program is started.

The agent reads them on boards (Python 3.8). Clocks are in MHz, temperatures in degrees Celsius. What a board does not
have is left out: an unknown clock is not a fixed one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

__all__ = ["read_line", "read_sensors"]

MOST = 64
"""Clocks and temperatures of one kind that are kept."""


def read_line(path: Path) -> str:
    """The first line of a small file of the kernel, empty where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.readline(4096).decode("utf-8", "replace").strip("\0 \t\r\n")
    except (OSError, ValueError):
        return ""


def read_sensors(root: Path = Path("/")) -> dict[str, Any]:
    """Facts and readings of the machine whose files lie under `root`, as JSON values."""
    readings = {
        "model": read_line(root / "proc/device-tree/model") or read_line(root / "sys/class/dmi/id/product_name"),
        "release": read_line(root / "etc/nv_tegra_release"),
        "power_mode": _power_mode(root),
        "clocks_mhz": _clocks(root),
        "temperatures_c": _temperatures(root),
    }
    return {name: value for name, value in readings.items() if value}


def _power_mode(root: Path) -> str:
    """The mode that `nvpmodel` set on a Jetson, by its name in the board's own table, else by its number."""
    match = re.match(r"pmode:0*(\d+)", read_line(root / "var/lib/nvpmodel/status"))
    if match is None:
        return ""
    try:
        table = (root / "etc/nvpmodel.conf").read_text(encoding="utf-8", errors="replace")
    except OSError:
        table = ""
    named = re.search(rf"<\s*POWER_MODEL\s+ID={match[1]}\s+NAME=(\S+)\s*>", table)
    return named[1] if named else match[1]


def _clocks(root: Path) -> dict[str, float]:
    """Clocks of cores (kHz in `cpufreq`) and of what else scales (Hz in `devfreq`: GPUs, memory)."""
    cores = sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"))
    clocks = {file.parts[-3]: int(text) / 1e3 for file in cores[:MOST] if (text := read_line(file)).isdigit()}
    others = sorted(root.glob("sys/class/devfreq/*/cur_freq"))
    clocks.update({file.parts[-2]: int(text) / 1e6 for file in others[:MOST] if (text := read_line(file)).isdigit()})
    memory = read_line(root / "sys/kernel/debug/bpmp/debug/clk/emc/rate")  # root's only
    return {**clocks, **({"emc": int(memory) / 1e6} if memory.isdigit() else {})}


def _temperatures(root: Path) -> dict[str, float]:
    """Thermal zones by their type, in the order of their numbers; a type that is there twice is numbered."""
    readings: dict[str, float] = {}
    zones = sorted(root.glob("sys/class/thermal/thermal_zone*"), key=lambda zone: (len(zone.name), zone.name))
    for zone in zones[:MOST]:
        text, name = read_line(zone / "temp"), read_line(zone / "type") or zone.name
        if re.fullmatch(r"-?\d+", text):
            readings[name if name not in readings else f"{name} ({zone.name[len('thermal_zone') :]})"] = int(text) / 1e3
    return readings
