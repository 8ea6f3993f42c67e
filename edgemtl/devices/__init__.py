"""Devices as data: their hardware, their runtimes, and how to measure on them.

A device is a YAML file in `profiles/`: a user's own folder of that name first, then the shipped one. A file is data
from outside: it is read as safe YAML with limits, checked against a schema that allows no other key, and executes
nothing.
"""

from edgemtl.devices.loading import (
    HOST,
    Place,
    any_processor,
    device_file,
    device_names,
    device_of,
    load_device,
    reached_now,
    resolve,
)
from edgemtl.devices.own import new_device, own_file
from edgemtl.devices.reach import SSH, parse_reach
from edgemtl.devices.schema import (
    Citation,
    Device,
    Fpga,
    Peak,
    PowerMode,
    Reach,
    Runtime,
    Sensor,
    System,
    own_precisions,
)

__all__ = [
    "HOST",
    "SSH",
    "Citation",
    "Device",
    "Fpga",
    "Peak",
    "Place",
    "PowerMode",
    "Reach",
    "Runtime",
    "Sensor",
    "System",
    "any_processor",
    "device_file",
    "device_names",
    "device_of",
    "load_device",
    "new_device",
    "own_file",
    "own_precisions",
    "parse_reach",
    "reached_now",
    "resolve",
]
