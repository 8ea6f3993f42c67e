"""Rails whose energy or power a machine tells in its files, each kind of board in its own. No program is started.

Intel's and AMD's RAPL has counters, in two trees for the same packages; Jetsons have INA3221 (Thor: INA238) monitors,
which tell voltage and current, or power, of the moment, and AMD's ZCU102 an INA226 for each rail. The agent reads them
on boards (Python 3.8).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgemtl.profiling.sensors import read_line

__all__ = ["Rail", "find_rails"]

MONITORS = ("ina219", "ina226", "ina228", "ina237", "ina238", "ina260", "ina3221", "sq52206")
WHOLE_BOARD = ("VDD_IN", "POM_5V_IN")
"""The rail that feeds all others, where a board has it; else the sum of all rails counts."""
UNUSED = ("NC", "sum of shunt voltages")
RAPL_TREES = ("intel-rapl", "intel-rapl-mmio")
CHANNELS = range(1, 9)


@dataclass(frozen=True)
class Rail:
    """One supply: a counter of energy in uJ that starts anew at `wraps_at`, or power as a product of `files`.

    `unit` is what one step of the counter, or of the product, is in joules or watts.
    """

    name: str
    files: tuple[Path, ...]
    unit: float
    is_counter: bool
    wraps_at: int = 0

    def read(self) -> float | None:
        """The counter, or the power in watts; None where it cannot be read now."""
        value = 1
        for file in self.files:
            text = read_line(file)
            if not text.lstrip("-").isdigit():
                return None
            value *= int(text)
        return float(value) if self.is_counter else value * self.unit


def find_rails(root: Path = Path("/")) -> tuple[list[Rail], str]:
    """The rails of the machine whose files lie under `root`, of one kind; without any, why there are none."""
    counters, unreadable = _rapl(root)
    monitors = [rail for folder in sorted(root.glob("sys/class/hwmon/hwmon*")) for rail in _monitor(folder)]
    older = sorted(root.glob("sys/bus/i2c/drivers/ina3221x/*/iio:device*"))
    monitors += [rail for folder in older for rail in _iio(folder)]
    for rails in ([each for each in monitors if each.is_counter], monitors, counters):
        whole = [rail for rail in rails if rail.name in WHOLE_BOARD]
        if readable := [rail for rail in whole or rails if rail.read() is not None]:
            return readable, ""
    if unreadable:
        return [], "its energy counters are root's: sudo chmod -R a+r /sys/class/powercap"
    return [], "it has no energy counter and no power monitor that is known"


def _rapl(root: Path) -> tuple[list[Rail], bool]:
    """Packages and memory, each once though two trees may have it; and whether some cannot be read."""
    rails: dict[str, Rail] = {}
    unreadable = False
    for tree in RAPL_TREES:
        for zone in sorted(root.glob(f"sys/class/powercap/{tree}:*")):
            name, wraps_at = read_line(zone / "name"), read_line(zone / "max_energy_range_uj")
            parent = zone.name.rsplit(":", 1)[0] if zone.name.count(":") > 1 else ""
            full_name = f"{read_line(zone.parent / parent / 'name')} {name}" if parent else name
            if not (name.startswith("package") or name == "dram") or full_name in rails:
                continue
            rail = Rail(full_name, (zone / "energy_uj",), 1e-6, True, int(wraps_at) if wraps_at.isdigit() else 0)
            if rail.read() is None:
                unreadable = True
            else:
                rails[full_name] = rail
    return list(rails.values()), unreadable


def _monitor(folder: Path) -> list[Rail]:
    """Rails of a power monitor: a counter where it has one, else power, else voltage times current."""
    chip, _, part = read_line(folder / "name").partition("_")
    if chip not in MONITORS:
        return []
    if part:  # a board's own name for one that comes through IIO, whose power is not in uW with every kernel
        bus = (folder / "in2_input", folder / "curr1_input")
        return [Rail(f"{chip} {part}", bus, 1e-6, False)] if all(file.exists() for file in bus) else []
    label = read_line(folder / "label") or chip
    if (folder / "energy1_input").exists():
        return [Rail(label, (folder / "energy1_input",), 1e-6, True)]
    if (folder / "power1_input").exists():
        return [Rail(label, (folder / "power1_input",), 1e-6, False)]
    rails = []
    for number in CHANNELS:
        name = read_line(folder / f"in{number}_label")
        pair = (folder / f"in{number}_input", folder / f"curr{number}_input")
        if name not in ("", *UNUSED) and all(file.exists() for file in pair):
            rails.append(Rail(name, pair, 1e-6, False))  # millivolts times milliamperes
    return rails


def _iio(folder: Path) -> list[Rail]:
    """Rails of an INA3221 as JetPack 4 shows it: power in milliwatts."""
    files = [(read_line(folder / f"rail_name_{number}"), folder / f"in_power{number}_input") for number in range(3)]
    return [Rail(name, (file,), 1e-3, False) for name, file in files if name not in ("", *UNUSED) and file.exists()]
