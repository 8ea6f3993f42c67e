"""Devices as data: their hardware, their runtimes, and how to measure on them.

A device is a YAML file in `profiles/`: a user's own folder of that name first, then the shipped one. A file is data
from outside: it is read as safe YAML with limits, checked against a schema that allows no other key, and executes
nothing.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from edgemtl.arithmetic import ANY, Arithmetic, own_arithmetic
from edgemtl.environment import environment
from edgemtl.errors import UnsupportedError, UserError, unknown_name
from edgemtl.files.share import find_shared, list_shared
from edgemtl.files.yaml import read_yaml
from edgemtl.schema import Strict, Text, first_problem
from edgemtl.units import Budget, find_quantity

__all__ = [
    "HOST",
    "Device",
    "Fpga",
    "Peak",
    "Place",
    "PowerMode",
    "Reach",
    "Runtime",
    "Sensor",
    "any_processor",
    "device_names",
    "load_device",
    "own_precisions",
    "resolve",
]

HOST = "host"
"""Name of this machine as a device."""

FILE_LIMIT_BYTES = 64 * 1024
_NO_PROCESSOR = ("gpu", "dsp", "fpga")
Precision = Literal["fp32", "fp16", "bf16", "int8", "int4", "fixed"]
ShortName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
Rate = Annotated[float, Field(gt=0, le=1e18)]
Count = Annotated[int, Field(ge=0, le=10**9)]


class Runtime(Strict):
    """A runtime that runs on the device, and the precisions it honours there.

    `arithmetic` is what it multiplies with where that is not the device's processor: a GPU, say.
    """

    name: ShortName
    precisions: tuple[Precision, ...] = Field(min_length=1, max_length=8)
    arithmetic: Arithmetic | None = None
    note: Text = ""


class Peak(Strict):
    """A peak rate of arithmetic (operations per second, 2 per multiply-accumulate) and who says so.

    `stated`: by the vendor; `derived`: units x width x clock. Neither is a measurement.
    """

    unit: ShortName
    precision: Precision
    ops_per_s: Rate
    kind: Literal["stated", "derived"]
    sparse: bool = False
    note: Text = ""


class PowerMode(Strict):
    """A power mode as the vendor names it."""

    name: Annotated[str, Field(max_length=40)]
    watts: Annotated[float, Field(gt=0, le=2000)] | None = None


class Sensor(Strict):
    """A reading of the device: power (W), temperature (C) or throttling; `read` names its source."""

    name: Annotated[str, Field(max_length=60)]
    quantity: Literal["power", "temperature", "throttling"]
    read: Text


class Fpga(Strict):
    """Resources of an FPGA; `part` is the vendor tools' name for it."""

    part: Annotated[str, Field(max_length=60)]
    luts: Count
    flip_flops: Count
    bram_36k: Count
    dsps: Count
    urams: Count = 0


class Reach(Strict):
    """How to log in over ssh; empty until the user fills it in (keys live in the ssh agent, never here)."""

    host: Annotated[str, Field(max_length=253, pattern=r"^[A-Za-z0-9._:-]*$")] = ""
    user: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9._-]*$")] = ""
    port: Annotated[int, Field(ge=1, le=65535)] = 22


class Device(Strict):
    """One device. Sizes are in bytes, rates in bytes or operations per second, power in watts.

    `arithmetic` is what its processor multiplies eight-bit numbers with; it decides how INT8 is written. Where a file
    does not say, nothing is taken for granted. `measurer` names what reaches it from here (`edgemtl.profiling`), None
    where nothing does but this machine itself.
    """

    schema_: Literal["edgemtl.device/1"] = Field(alias="schema")
    name: ShortName
    title: Text
    kind: Literal["host", "board"]
    soc: Text = ""
    cpu: Text = ""
    accelerator: Text = ""
    memory_bytes: Annotated[int, Field(gt=0, le=2**50)] | None = None
    memory_bytes_per_s: Rate | None = None
    precisions: tuple[Precision, ...] = Field(min_length=1, max_length=8)
    arithmetic: Arithmetic = ANY
    runtimes: tuple[Runtime, ...] = Field(min_length=1, max_length=16)
    peaks: tuple[Peak, ...] = Field(default=(), max_length=32)
    power_modes: tuple[PowerMode, ...] = Field(default=(), max_length=16)
    sensors: tuple[Sensor, ...] = Field(default=(), max_length=64)
    fpga: Fpga | None = None
    reach: Reach = Reach()
    measurer: ShortName | None = None
    notes: tuple[Text, ...] = Field(default=(), max_length=20)

    def runtime(self, name: str) -> Runtime:
        """The device's runtime called `name`; raises `UserError` with the nearest names."""
        for runtime in self.runtimes:
            if runtime.name == name:
                return runtime
        raise unknown_name(f"runtime of device {self.name}", name, (runtime.name for runtime in self.runtimes))

    def arithmetic_of(self, runtime: str) -> Arithmetic:
        """Arithmetic of a runtime on this device: its own where it declares one, else the processor's."""
        own = next((each.arithmetic for each in self.runtimes if each.name == runtime), None)
        return own or self.arithmetic

    @property
    def is_host(self) -> bool:
        """Whether it stands for the machine that a command runs on, whatever that is."""
        return self.kind == "host"

    @property
    def is_here(self) -> bool:
        """Whether this machine is that device, so that timings and outputs here hold there.

        The host of a run that was made on another machine may have another processor, or a precision that this lacks.
        """
        is_own = own_precisions(self.precisions) == self.precisions
        return self.is_host and self.arithmetic == own_arithmetic() and is_own

    def as_json(self) -> dict[str, Any]:
        """The properties that decide how engines are built; the rest may change while a run is resumed."""
        deciding = {"schema_", "name", "title", "kind", "precisions", "arithmetic", "runtimes", "measurer"}
        return self.model_dump(mode="json", by_alias=True, include=deciding)

    def reached_now(self) -> Device:
        """The device with its access (`reach`) as its file has it now, if there is a file."""
        if self.measurer is None or self.name not in device_names():
            return self
        return self.model_copy(update={"reach": load_device(self.name).reach})


@dataclass(frozen=True)
class Place:
    """Where a budget's latency is measured: a device that can be reached and one of its runtimes (None: any)."""

    device: Device
    runtime: str | None


def device_names() -> list[str]:
    """Names of every device file, the user's own and the shipped ones."""
    return list_shared("profiles")


def load_device(name: str) -> Device:
    """The device called `name`; the host's processor, memory and precisions are filled in from the machine itself.

    Raises `UserError` with the nearest names, or with the first thing that is wrong in its file.

    >>> load_device("raspberry-pi-5").arithmetic
    'arm-dot'
    """
    path = find_shared("profiles", f"{name}.yaml") if name in device_names() else None
    if path is None:
        raise unknown_name("device", name, device_names())
    device = _read(path)
    if device.name != name:
        raise UserError(
            f"device file {path} calls itself {device.name!r}: rename the file or the device so that they agree"
        )
    return _detected(device) if device.is_host else device


def any_processor(device: Device) -> Device:
    """The device with an unknown processor: an engine that is correct on it is correct on every processor.

    Its runtimes' claims about the processor are dropped too. A GPU, DSP or FPGA is not one and stays, except where the
    host has the runtime: that opens the same engines on a processor.
    """
    on_processors = {runtime.name for runtime in load_device(HOST).runtimes}
    runtimes = tuple(
        runtime
        if runtime.arithmetic in _NO_PROCESSOR and runtime.name not in on_processors
        else runtime.model_copy(update={"arithmetic": None})
        for runtime in device.runtimes
    )
    return device.model_copy(update={"arithmetic": ANY, "runtimes": runtimes})


def own_precisions(precisions: Iterable[str]) -> tuple[str, ...]:
    """The `precisions` that this machine computes in: BF16 only where its processor has instructions for it."""
    bf16 = bool({"avx512_bf16", "amx_bf16", "bf16"} & set(environment()["cpu"]["flags"]))
    return tuple(precision for precision in precisions if precision != "bf16" or bf16)


def _read(path: Path) -> Device:
    _, content = read_yaml(path, "device file", FILE_LIMIT_BYTES)
    try:
        return Device.model_validate(content)
    except ValidationError as error:
        raise UserError(f"device file {path}: {first_problem(error)}; compare it with a shipped device") from error


def _detected(device: Device) -> Device:
    machine = environment()
    precisions = own_precisions(device.precisions)
    runtimes = tuple(
        runtime.model_copy(update={"precisions": tuple(p for p in runtime.precisions if p in precisions)})
        for runtime in device.runtimes
    )
    return device.model_copy(
        update={
            "cpu": f"{machine['cpu']['model'] or platform.machine()}, {machine['cpu']['usable_threads']} threads",
            "memory_bytes": machine["memory"]["total_bytes"],
            "precisions": precisions,
            "arithmetic": machine["cpu"]["class"],
            "runtimes": runtimes,
        }
    )


def resolve(budget: Budget) -> Place | None:
    """The place where `budget` is measured; None for a count, which is the same everywhere.

    Raises `UserError` for an unknown device or runtime, and `UnsupportedError` for a budget that this version cannot
    measure from here: latency on a board that no measurer reaches, and energy anywhere.
    """
    if budget.counted:
        return None
    device = load_device(budget.device or HOST)
    if budget.runtime is not None:
        device.runtime(budget.runtime)
    if unavailable := find_quantity(budget.quantity).unavailable:
        raise UnsupportedError(f"budget {budget.text!r}: {unavailable}")
    if device.kind != "host" and device.measurer is None:
        raise UnsupportedError(
            f"budget {budget.text!r}: latency is measured only on the host in this version, not on {device.name}; "
            f"search with a FLOPs or MB budget (or ms without @{device.name}), export, "
            "copy the bundle to the board and run edgemtl profile there"
        )
    return Place(device, budget.runtime)
