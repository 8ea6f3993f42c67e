"""Disturbances while the clock ran: throttling, other processes, a busy hypervisor."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, process_time

from edgemtl.profiling.samples import Samples
from edgemtl.profiling.schema import Stability

__all__ = ["Watch", "unwatched"]

UNSTABLE_COV = 0.10
UNSTABLE_DRIFT = 0.05
BUSY_FRACTION = 0.10
STOLEN_FRACTION = 0.02
MIN_HALF = 10

_SYS = Path("/sys/devices/system/cpu")
_THERMAL = Path("/sys/class/thermal")


@dataclass
class _Reading:
    """Counters at one moment; None where the system has none."""

    wall_s: float = field(default_factory=monotonic)
    own_s: float = field(default_factory=process_time)
    throttle_events: int | None = field(default_factory=lambda: _throttle_events())
    busy_s: float | None = None
    stolen_s: float | None = None

    def __post_init__(self) -> None:
        jiffies = _jiffies()
        if jiffies is not None:
            self.busy_s, self.stolen_s = jiffies


class Watch:
    """A context around a measurement; afterwards `stability` judges the samples by what was seen.

    The thresholds: a coefficient of variation above 10 % (trtexec warns at 2.5 % on a GPU; a CPU shares its cores
    with the system), medians of the first and second half more than 5 % apart, other processes above 10 % of the
    machine, or more than 2 % of it stolen by other virtual machines.
    """

    def __enter__(self) -> Watch:
        self.load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        self._hot = _cooling()
        self._before = _Reading()
        return self

    def __exit__(self, *_: object) -> None:
        self._after = _Reading()
        self._hot = None if self._hot is None else self._hot or bool(_cooling())

    @property
    def throttled(self) -> str:
        """Whether the processor was throttled by heat: "yes", "no", or "unknown" where no counter exists."""
        before, after = self._before.throttle_events, self._after.throttle_events
        rose = None if before is None or after is None else after > before
        if rose or self._hot:
            return "yes"
        return "unknown" if rose is None and self._hot is None else "no"

    def stability(self, samples: Mapping[str, Samples]) -> Stability:
        """Judge the samples that were drawn inside this context."""
        others, stolen = self._shares()
        reasons = _unsteady(samples)
        if self.throttled == "yes":
            reasons.append("the processor was throttled while it was measured: cool it or lower its power mode")
        if others is not None and others > BUSY_FRACTION:
            reasons.append(f"other processes took {others:.0%} of the machine meanwhile: stop them and measure again")
        if stolen is not None and stolen > STOLEN_FRACTION:
            reasons.append(f"other virtual machines took {stolen:.0%} of this machine meanwhile")
        return Stability.model_validate(
            {
                "stable": not reasons,
                "throttled": self.throttled,
                "worst_cov": max((each.cov for each in samples.values()), default=0.0),
                "load_average": self.load_average,
                "others_cpu": others,
                "stolen_cpu": stolen,
                "reasons": reasons,
            }
        )

    def _shares(self) -> tuple[float | None, float | None]:
        """Fractions of all cores' time taken by other processes and by other virtual machines."""
        before, after = self._before, self._after
        capacity = (after.wall_s - before.wall_s) * (os.cpu_count() or 1)
        if before.busy_s is None or after.busy_s is None or capacity <= 0:
            return None, None
        others = after.busy_s - before.busy_s - (after.own_s - before.own_s)
        stolen = (after.stolen_s or 0.0) - (before.stolen_s or 0.0)
        return min(1.0, max(0.0, others / capacity)), min(1.0, max(0.0, stolen / capacity))


def unwatched(samples: Mapping[str, Samples]) -> Stability:
    """The verdict on samples of a device that nothing watched meanwhile: they are not certified."""
    reasons = [*_unsteady(samples), "nothing watched the device meanwhile: whether it throttled is not known"]
    return Stability(
        stable=False,
        throttled="unknown",
        worst_cov=max((each.cov for each in samples.values()), default=0.0),
        load_average=None,
        others_cpu=None,
        stolen_cpu=None,
        reasons=tuple(reasons),
    )


def _unsteady(samples: Mapping[str, Samples]) -> list[str]:
    """At most one line on variation and one on drift: the worst mode, and the number of modes affected."""
    cov = {name: each.cov for name, each in samples.items() if each.cov > UNSTABLE_COV}
    drift = {name: moved for name, each in samples.items() if abs(moved := _drift(each)) > UNSTABLE_DRIFT}
    reasons = []
    if cov:
        worst = max(cov, key=lambda name: cov[name])
        among = f"in {len(cov)} of {len(samples)} modes, most in {worst!r}"
        reasons.append(f"samples vary by up to {cov[worst]:.0%} of their mean (limit {UNSTABLE_COV:.0%}) {among}")
    if drift:
        worst = max(drift, key=lambda name: abs(drift[name]))
        among = f"in {len(drift)} of {len(samples)} modes, most in {worst!r}"
        reasons.append(f"the median moved by up to {drift[worst]:+.0%} from the first half to the second {among}")
    return reasons


def _drift(samples: Samples) -> float:
    """Median of the second half over the first's, minus one; 0 if there are too few samples."""
    half = len(samples.samples_ms) // 2
    if half < MIN_HALF:
        return 0.0
    first, second = (Samples(part, 0, 1).median_ms for part in (samples.samples_ms[:half], samples.samples_ms[half:]))
    return second / first - 1 if first > 0 else 0.0


def _throttle_events() -> int | None:
    files = list(_SYS.glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))
    counts = [text for file in files if (text := _text(file)).isdigit()]
    return sum(map(int, counts)) if counts else None


def _cooling() -> bool | None:
    """Whether a cooling device is slowing a processor (Arm boards); None if there is no such device."""
    states = [
        _text(device / "cur_state")
        for device in _THERMAL.glob("cooling_device*")
        if any(word in _text(device / "type").lower() for word in ("cpufreq", "processor", "devfreq"))
    ]
    return any(state.isdigit() and int(state) > 0 for state in states) if states else None


def _jiffies() -> tuple[float, float] | None:
    """Seconds since boot that all cores together were busy, and that the hypervisor gave to others."""
    fields = _text(Path("/proc/stat")).partition("\n")[0].split()
    if len(fields) < 9 or fields[0] != "cpu":
        return None
    user, nice, system, _, _, interrupts, soft, stolen = (int(value) for value in fields[1:9])
    tick = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + interrupts + soft) / tick, stolen / tick


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
