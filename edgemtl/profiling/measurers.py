"""Measurers by name: the one that the device's profile names, else the one of the target's traits.

Others plug in through the entry-point group `edgemtl.measurers`, as a function of a `Device` and a target's name.
"""

from __future__ import annotations

from collections.abc import Callable

from edgemtl.devices import Device
from edgemtl.plugins import Registry
from edgemtl.profiling.measurer import LocalMeasurer, Measurer, NoMeasurer
from edgemtl.profiling.remote.measurer import SshMeasurer

__all__ = ["find_measurer", "measurer_names"]

_MEASURERS: Registry[Callable[[Device, str], Measurer]] = Registry(
    "measurer",
    "edgemtl.measurers",
    {"local": lambda: LocalMeasurer, "none": lambda: NoMeasurer, "ssh": lambda: SshMeasurer},
    returns=Measurer,
)


def measurer_names() -> list[str]:
    """Names of every measurer, built in and plugged in."""
    return _MEASURERS.names()


def find_measurer(device: Device, target: str, usual: str = "local") -> Measurer:
    """The measurer of a target's engines on a device: the one that its profile names, else the `usual` one.

    Raises `UserError` with the nearest names for an unknown one, and for a plug-in that fails.
    """
    return _MEASURERS.call(device.measurer or usual, device, target)
