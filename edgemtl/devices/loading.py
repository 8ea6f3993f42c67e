"""Device files: found, read and checked; the host's is filled in from the machine itself."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from edgemtl.arithmetic import ANY
from edgemtl.devices.reach import SCHEME, SSH, parse_reach
from edgemtl.devices.schema import DECIDING, Device, Precision, Reach, Runtime, own_precisions
from edgemtl.environment import environment
from edgemtl.errors import UnsupportedError, UserError, unknown_name
from edgemtl.files.share import find_shared, list_shared
from edgemtl.files.yaml import read_yaml
from edgemtl.schema import first_problem
from edgemtl.units import Budget, find_quantity

__all__ = [
    "HOST",
    "Place",
    "any_processor",
    "device_file",
    "device_names",
    "device_of",
    "load_device",
    "reached_now",
    "resolve",
]

HOST = "host"
"""Name of this machine as a device."""

FOLDER = "profiles"
FILE_LIMIT_BYTES = 64 * 1024
_NO_PROCESSOR = ("gpu", "dsp", "fpga")


@dataclass(frozen=True)
class Place:
    """Where the latency of a budget is that of: a device and one of its runtimes (None: any)."""

    device: Device
    runtime: str | None


def device_names() -> list[str]:
    """Names of every device file, the user's own and the shipped ones."""
    return list_shared(FOLDER)


def device_file(name: str) -> Path:
    """The file of the device called `name`; raises `UserError` with the nearest names."""
    path = find_shared(FOLDER, f"{name}.yaml") if name in device_names() else None
    if path is None:
        raise unknown_name("device", name, device_names())
    return path


def load_device(name: str) -> Device:
    """The device called `name`; the host's processor, memory and precisions are filled in from the machine itself.

    `ssh://user@host` is a board that has no file: nothing is taken for granted of it. A board whose file says how it is
    reached is measured over ssh, unless it names another measurer. Raises `UserError` with the nearest names, or with
    the first thing that is wrong in its file.

    >>> load_device("raspberry-pi-5").arithmetic
    'arm-dot'
    """
    if name.startswith(SCHEME):
        return _unknown_board(parse_reach(name))
    path = device_file(name)
    device = _read(path)
    if device.name != name:
        raise UserError(
            f"device file {path} calls itself {device.name!r}: rename the file or the device so that they agree"
        )
    if device.is_host:
        return _detected(device)
    return device.model_copy(update={"measurer": SSH}) if device.reach.host and not device.measurer else device


def _unknown_board(reach: Reach) -> Device:
    """A board of which only the address is known."""
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    runtimes = [Runtime(name=name, precisions=precisions) for name in ("onnxruntime", "openvino", "tensorrt")]
    content = {
        "schema": "edgemtl.device/1",
        "name": re.sub("[^a-z0-9.-]", "-", reach.host.lower()).strip(".-")[:64] or "board",
        "title": reach.url,
        "kind": "board",
        "precisions": precisions,
        "runtimes": runtimes,
        "reach": reach,
        "measurer": SSH,
    }
    return Device.model_validate(content)


def reached_now(device: Device) -> Device:
    """A device that a run keeps, with what its file says today of its access, its memory and its rates.

    What decides how engines are built stays as the run has it.
    """
    if device.is_host or device.name not in device_names():
        return device
    decided = {name: getattr(device, name) for name in DECIDING}
    return load_device(device.name).model_copy(update=decided)


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


def _read(path: Path) -> Device:
    _, content = read_yaml(path, "device file", FILE_LIMIT_BYTES)
    try:
        return Device.model_validate(content)
    except ValidationError as error:
        problem = _unknown_field(error) or first_problem(error)
        raise UserError(f"device file {path}: {problem}; compare it with a shipped device") from error


def _unknown_field(error: ValidationError) -> str:
    """The first problem in words, with the nearest names, where it is a field that its part has not."""
    first = error.errors(include_url=False)[0]
    if first["type"] != "extra_forbidden":
        return ""
    *where, name = map(str, first["loc"])
    part: type[BaseModel] = Device
    for step in where:
        if step in (names := _fields_by_name(part)):
            part = next(each for each in (names[step], *get_args(names[step])) if _is_part(each))
    return f"{'.'.join(where) or 'the whole file'}: {unknown_name('field', name, _fields_by_name(part))}"


def _fields_by_name(part: type[BaseModel]) -> dict[str, Any]:
    """The types of a part's fields, by the names that they have in a file."""
    return {str(field.validation_alias or name): field.annotation for name, field in part.model_fields.items()}


def _is_part(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


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
    """The device and the runtime that `budget` is about; None for a count, which is the same everywhere.

    Raises `UserError` for an unknown device or runtime, and `UnsupportedError` for a limit in energy, which has none.
    """
    if budget.counted:
        return None
    device = load_device(budget.device or HOST)
    if budget.runtime is not None:
        device.runtime(budget.runtime)
    if unavailable := find_quantity(budget.quantity).unavailable:
        raise UnsupportedError(f"budget {budget.text!r}: {unavailable}")
    return Place(device, budget.runtime)


def device_of(budgets: Sequence[Budget], given: str) -> Device:
    """The device of a search: the `given` one, and where that is the host the board that its budgets name.

    Raises `UserError` where budgets name several, and as `resolve` does.
    """
    for budget in budgets:
        resolve(budget)
    named = list(dict.fromkeys(budget.device for budget in budgets if budget.device))
    if len(named) > 1:
        raise UserError(f"budgets name the devices {' and '.join(named)}: a search serves one, start one for each")
    return load_device(named[0] if given == HOST and named else given)
