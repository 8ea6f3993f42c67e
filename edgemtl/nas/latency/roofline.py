"""A roofline of a design's parts: times that follow from a device's rates, and from what a runtime makes of them.

A part takes the longer of its arithmetic and of the bytes that it moves, each at a share of the device's rate
(Williams, Waterman and Patterson, "Roofline", 2009), and a launch. The shares, the efficiencies, are fitted by class of
operator and precision on a processor whose parts were timed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgemtl.devices import Device, own_file
from edgemtl.errors import UserError
from edgemtl.nas.latency.parts import Part
from edgemtl.targets import FPGA_CLOCK_NS

__all__ = [
    "UNFITTED",
    "Efficiencies",
    "Roofs",
    "Workload",
    "compute_key",
    "estimate_ms",
    "lacking_roofs",
    "memory_key",
    "roofs_of",
]

_WIDER = {"int8": "fp16", "fp16": "fp32", "bf16": "fp32"}
"""Where no peak of a precision is stated, that of the next wider one is taken: too little, never too much."""


@dataclass(frozen=True)
class Roofs:
    """The most that a device does: operations per second in each precision, and bytes per second from memory."""

    ops_per_s: Mapping[str, float]
    bytes_per_s: float

    def rate(self, precision: str) -> float:
        """Operations per second in a precision, or in the nearest wider one that is known."""
        while precision not in self.ops_per_s:
            precision = _WIDER[precision]
        return self.ops_per_s[precision]


@dataclass(frozen=True)
class Efficiencies:
    """Shares of a device's rates that a runtime reaches, and what it takes besides.

    `compute` has the share of the peak that a class of operator reaches in a precision, by `compute_key`, `memory` the
    share of the bandwidth, by `memory_key`; from a cache it may be more than all of it. `launch_ms` is what every part
    takes besides. `outside` is what parts take in an engine over what a profile says that they take, launches apart, by
    the precision that they compute in: runtimes' profilers cost more here than there.
    """

    compute: Mapping[str, float] = field(default_factory=dict)
    memory: Mapping[str, float] = field(default_factory=dict)
    launch_ms: float = 0.0
    outside: Mapping[str, float] = field(default_factory=dict)

    def outside_of(self, precision: str) -> float:
        """That factor for a precision, or for the nearest wider one that was fitted; 1 where none was."""
        while precision not in self.outside and precision in _WIDER:
            precision = _WIDER[precision]
        return self.outside.get(precision, 1.0)


UNFITTED = Efficiencies()
"""Every rate reached in full, and nothing besides: what there is until a fit was made."""


def compute_key(part: Part) -> str:
    """The key of a part's share of the peak rate: `dense int8`, `pointwise float`."""
    return f"{part.operator} {'int8' if part.precision == 'int8' else 'float'}"


def memory_key(part: Part) -> str:
    """The key of a part's share of the bandwidth: what multiplies, and what only moves, often fused into the former."""
    return "products" if part.macs else "elementwise"


@dataclass(frozen=True)
class Workload:
    """Parts against the roofs of a device: seconds of arithmetic and of moving at full rate, and the keys of shares."""

    arithmetic_s: NDArray[np.float64]
    moving_s: NDArray[np.float64]
    compute_keys: tuple[str, ...]
    memory_keys: tuple[str, ...]
    precisions: tuple[str, ...]

    @classmethod
    def of(cls, parts: Sequence[Part], roofs: Roofs) -> Workload:
        """The workload of parts."""
        return cls(
            np.array([2 * part.macs / roofs.rate(part.precision) for part in parts]),
            np.array([part.moved_bytes / roofs.bytes_per_s for part in parts]),
            tuple(map(compute_key, parts)),
            tuple(map(memory_key, parts)),
            tuple(part.precision for part in parts),
        )

    def ms(self, efficiencies: Efficiencies) -> NDArray[np.float64]:
        """Time of each part in ms, without `outside`."""
        return self.busy_ms(efficiencies) + efficiencies.launch_ms

    def busy_ms(self, efficiencies: Efficiencies) -> NDArray[np.float64]:
        """That without launches. A class that was not fitted has the median of those that were."""
        arithmetic_s = self.arithmetic_s / _shares_of(efficiencies.compute, self.compute_keys)
        moving_s = self.moving_s / _shares_of(efficiencies.memory, self.memory_keys)
        return np.asarray(1000 * np.maximum(arithmetic_s, moving_s), dtype=np.float64)


def estimate_ms(parts: Sequence[Part], roofs: Roofs, efficiencies: Efficiencies) -> float:
    """The latency of a design by its parts, in ms."""
    workload = Workload.of(parts, roofs)
    factors = [efficiencies.outside_of(precision) for precision in workload.precisions]
    return float(workload.busy_ms(efficiencies) @ np.array(factors)) + len(parts) * efficiencies.launch_ms


def _shares_of(shares: Mapping[str, float], keys: Sequence[str]) -> NDArray[np.float64]:
    usual = float(np.median([*shares.values()] or [1.0]))
    return np.array([shares.get(key, usual) for key in keys])


def lacking_roofs(device: Device, runtime: str) -> list[str]:
    """Rates that an estimate of a runtime's latency needs and the device's file does not state, in words."""
    unit = device.runtime(runtime).unit
    lacking = [] if device.memory_bytes_per_s else ["bandwidth"]
    return lacking if "fp32" in device.peaks_of(unit) else [*lacking, f"peak of fp32 on its {unit}"]


def roofs_of(device: Device, runtime: str) -> Roofs:
    """The rates that a device's file states for the unit that a runtime runs on; `UserError` where it does not."""
    if device.runtime(runtime).unit == "fpga":
        raise UserError(
            f"device {device.name} is an FPGA, whose time is estimated in cycles of {FPGA_CLOCK_NS:g} ns between two "
            f"images: for 8 ms give {8e6 / FPGA_CLOCK_NS / 1e6:g}Mcycles"
        )
    if lacking := lacking_roofs(device, runtime):
        raise UserError(
            f"device {device.name} states no {' and no '.join(lacking)}, which an estimate of latency needs: add it to "
            f"{own_file(device)}"
        )
    assert device.memory_bytes_per_s is not None
    return Roofs(device.peaks_of(device.runtime(runtime).unit), device.memory_bytes_per_s)
