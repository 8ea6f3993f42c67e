"""Disturbances while the clock ran: throttling, other processes, a busy hypervisor. The agent watches boards with it.

Files of the kernel are read at both ends, none while the clock runs.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic, process_time
from typing import Any

from edgemtl.profiling.sensors import read_line, read_sensors

__all__ = ["Disturbance", "Watch"]

_COOLING = ("cpufreq", "processor", "devfreq")
_FIRMWARE = ("sys/devices/platform/*firmware*/get_throttled", "sys/devices/platform/soc*/*firmware*/get_throttled")
_SLOWED = 0b1110
"""Bits of a Raspberry Pi's firmware: clock capped, throttled, soft limit of temperature; 16 higher, since its start."""


@dataclass(frozen=True)
class Disturbance:
    """Readings of a machine while it measured; a share is a fraction of all its cores' time, None where nothing tells.

    `throttled` is "yes", "no", or "unknown" where no counter exists. `sensors` are clocks, temperatures and power mode
    `before` and `after` (`edgemtl.profiling.sensors`).
    """

    throttled: str
    load_average: float | None
    others_cpu: float | None
    stolen_cpu: float | None
    sensors: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


class Watch:
    """A context around a measurement, of the machine whose files lie under `root`; afterwards it tells what it saw."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def __enter__(self) -> Watch:
        self._load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        self._before = _Reading.take(self._root)
        return self

    def __exit__(self, *_: object) -> None:
        self._after = _Reading.take(self._root)

    @property
    def disturbance(self) -> Disturbance:
        """All that was seen, once the block has ended."""
        others, stolen = self._shares()
        return Disturbance(
            throttled=self._throttled(),
            load_average=self._load_average,
            others_cpu=others,
            stolen_cpu=stolen,
            sensors={"before": self._before.sensors, "after": self._after.sensors},
        )

    def _throttled(self) -> str:
        before, after = self._before, self._after
        rose = None
        if before.throttle_events is not None and after.throttle_events is not None:
            rose = after.throttle_events > before.throttle_events
        slowed = None
        if before.firmware is not None and after.firmware is not None:
            begun = after.firmware & ~before.firmware & _SLOWED << 16
            slowed = bool((before.firmware | after.firmware) & _SLOWED or begun)
        if rose or slowed or before.cooling or after.cooling:
            return "yes"
        return "unknown" if rose is None and slowed is None and before.cooling is None else "no"

    def _shares(self) -> tuple[float | None, float | None]:
        """Fractions of all cores' time taken by other processes and by other virtual machines."""
        before, after = self._before, self._after
        capacity = (after.wall_s - before.wall_s) * (os.cpu_count() or 1)
        if before.busy_s is None or after.busy_s is None or capacity <= 0:
            return None, None
        others = after.busy_s - before.busy_s - (after.own_s - before.own_s)
        stolen = (after.stolen_s or 0.0) - (before.stolen_s or 0.0)
        return min(1.0, max(0.0, others / capacity)), min(1.0, max(0.0, stolen / capacity))


@dataclass(frozen=True)
class _Reading:
    """Counters at one moment; None where the system has none."""

    wall_s: float
    own_s: float
    throttle_events: int | None
    cooling: bool | None
    firmware: int | None
    busy_s: float | None
    stolen_s: float | None
    sensors: dict[str, Any]

    @classmethod
    def take(cls, root: Path) -> _Reading:
        busy_s, stolen_s = _processor_seconds(root) or (None, None)
        slowing = (_throttle_events(root), _cooling(root), _firmware(root))
        return cls(monotonic(), process_time(), *slowing, busy_s, stolen_s, read_sensors(root))


def _throttle_events(root: Path) -> int | None:
    """Events that the processor (Intel) or a board's supply and heat monitor (Jetson) counted since it was started."""
    files = [
        *root.glob("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/*_throttle_count"),
        *root.glob("sys/class/hwmon/hwmon*/oc*_event_cnt"),
    ]
    counts = [text for file in files if (text := read_line(file)).isdigit()]
    return sum(map(int, counts)) if counts else None


def _cooling(root: Path) -> bool | None:
    """Whether a cooling device is slowing a processor (Arm boards); None if there is no such device."""
    states = [
        read_line(device / "cur_state")
        for device in root.glob("sys/class/thermal/cooling_device*")
        if any(word in read_line(device / "type").lower() for word in _COOLING)
    ]
    return any(state.isdigit() and int(state) > 0 for state in states) if states else None


def _firmware(root: Path) -> int | None:
    """The bits by which a Raspberry Pi's firmware says how it slows the cores; None on other machines."""
    for pattern in _FIRMWARE:
        for file in root.glob(pattern):
            if re.fullmatch(r"(0x)?[0-9a-fA-F]{1,8}", text := read_line(file)):
                return int(text, 16)
    return None


def _processor_seconds(root: Path) -> tuple[float, float] | None:
    """Seconds since boot that all cores together were busy, and that the hypervisor gave to others."""
    fields = read_line(root / "proc/stat").split()
    if len(fields) < 9 or fields[0] != "cpu":
        return None
    user, nice, system, _, _, interrupts, soft, stolen = (int(value) for value in fields[1:9])
    tick = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + interrupts + soft) / tick, stolen / tick
