"""The schema of a device file: what a board is, as data, each figure with its unit and the document that states it."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from edgemtl.arithmetic import ANY, Arithmetic, own_arithmetic
from edgemtl.environment import BF16_FLAGS, environment
from edgemtl.errors import UserError, unknown_name
from edgemtl.schema import Strict, Text
from edgemtl.units import parse_amount

__all__ = [
    "DECIDING",
    "Citation",
    "Device",
    "Fpga",
    "Peak",
    "PowerMode",
    "Precision",
    "Reach",
    "Runtime",
    "Sensor",
    "ShortName",
    "System",
    "own_precisions",
]

Precision = Literal["fp32", "fp16", "bf16", "fp8", "fp4", "int12", "int10", "int8", "int4", "fixed"]
ShortName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,63}$")]
Title = Annotated[str, Field(min_length=1, max_length=60)]
SYSTEM_PYTHON = "/usr/bin/python3"
_WORD, _PATH = r"[A-Za-z0-9_][A-Za-z0-9._-]*", r"/[A-Za-z0-9._/+-]*"
Count = Annotated[int, Field(ge=0, le=10**9)]


def _amount(base: str, value: object) -> float | None:
    """The amount in its base unit of a text such as `8 GiB`; pydantic reports a `ValueError` with its place."""
    if value is None:
        return None
    try:
        return parse_amount(value, base)
    except UserError as error:
        raise ValueError(str(error)) from error


Size = Annotated[int, BeforeValidator(partial(_amount, "bytes")), Field(gt=0, le=2**50)]
Bandwidth = Annotated[float, BeforeValidator(partial(_amount, "bytes/s")), Field(gt=0, le=1e18)]
OperationRate = Annotated[float, BeforeValidator(partial(_amount, "operations/s")), Field(gt=0, le=1e18)]
Watts = Annotated[float, BeforeValidator(partial(_amount, "watts")), Field(gt=0, le=2000)]


class Runtime(Strict):
    """A runtime that runs on the device, and the precisions it honours there.

    It runs on a `unit` of the device ("cpu", "gpu", "fpga", ...), whose `peaks` it can reach. `arithmetic` is what it
    multiplies with where that is not the device's processor: a GPU, say.
    """

    name: ShortName
    precisions: tuple[Precision, ...] = Field(min_length=1, max_length=8)
    unit: ShortName = "cpu"
    arithmetic: Arithmetic | None = None
    note: Text = ""


class System(Strict):
    """A system that the board runs, `JetPack 6.2`, its Python, and the versions that it brings: `tensorrt: "10.3"`."""

    name: Title
    python: Annotated[str, Field(pattern=r"^3\.\d{1,2}$")]
    versions: dict[ShortName, Annotated[str, Field(pattern=r"^\d{1,4}(\.\d{1,4}){0,3}$")]] = Field(
        default_factory=dict, max_length=16
    )
    note: Text = ""


class Peak(Strict):
    """A peak rate of arithmetic of a unit (operations per second, 2 per multiply-accumulate) and who says so.

    `stated`: by the vendor; `derived`: units x width x clock. Neither is a measurement. A `sparse` one holds where two
    of four weights are zero.
    """

    unit: ShortName
    precision: Precision
    ops_per_s: OperationRate = Field(validation_alias="rate")
    kind: Literal["stated", "derived"]
    sparse: bool = False
    note: Text = ""


class PowerMode(Strict):
    """A power mode as the vendor names it, and the watts that it allows."""

    name: Annotated[str, Field(max_length=40)]
    watts: Watts | None = Field(default=None, validation_alias="limit")


class Sensor(Strict):
    """A reading of the device: energy (a counter), power, temperature, clock or throttling; `read` names its source."""

    name: Title
    quantity: Literal["energy", "power", "temperature", "clock", "throttling"]
    read: Text


class Fpga(Strict):
    """Resources of an FPGA; `part` is the vendor tools' name for it."""

    part: Title
    luts: Count
    flip_flops: Count
    bram_36k: Count
    dsps: Count
    urams: Count = 0


class Reach(Strict):
    """How to log in over ssh; empty until the user fills it in (keys live in the ssh agent, never here).

    `python` is what runs the agent on the board. Without a user or a port, ssh's own configuration decides.
    """

    host: Annotated[str, Field(max_length=253, pattern=r"^([A-Za-z0-9_:][A-Za-z0-9._:-]*)?$")] = ""
    user: Annotated[str, Field(max_length=64, pattern=rf"^({_WORD})?$")] = ""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    python: Annotated[str, Field(max_length=500, pattern=rf"^{_PATH}$")] = SYSTEM_PYTHON

    @property
    def url(self) -> str:
        """As it is written for `--device`."""
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        return f"ssh://{user}{host}{port}{'' if self.python == SYSTEM_PYTHON else self.python}"


class Citation(Strict):
    """The document that `facts`, fields of the file, were read in."""

    facts: tuple[str, ...] = Field(min_length=1, max_length=20)
    document: Annotated[str, Field(min_length=1, max_length=500)]
    url: Annotated[str, Field(max_length=500, pattern=r"^(https://\S+)?$")] = ""


class Device(Strict):
    """One device. Sizes are in bytes, rates in bytes or operations per second, power in watts.

    `arithmetic` is what its processor multiplies eight-bit numbers with; it decides how INT8 is written. Where a file
    does not say, nothing is taken for granted. `measurer` names what reaches it from here (`edgemtl.profiling`), None
    where nothing does but this machine itself. `dla` counts NVIDIA's deep-learning accelerators. `sources` are where
    its facts were read.
    """

    schema_: Literal["edgemtl.device/1"] = Field(validation_alias="schema", serialization_alias="schema")
    name: ShortName
    title: Text
    kind: Literal["host", "board"]
    soc: Text = ""
    cpu: Text = ""
    accelerator: Text = ""
    memory_bytes: Size | None = Field(default=None, validation_alias="memory")
    memory_bytes_per_s: Bandwidth | None = Field(default=None, validation_alias="bandwidth")
    precisions: tuple[Precision, ...] = Field(min_length=1, max_length=8)
    arithmetic: Arithmetic = ANY
    runtimes: tuple[Runtime, ...] = Field(min_length=1, max_length=16)
    systems: tuple[System, ...] = Field(default=(), max_length=32)
    peaks: tuple[Peak, ...] = Field(default=(), max_length=32)
    power_modes: tuple[PowerMode, ...] = Field(default=(), max_length=16)
    sensors: tuple[Sensor, ...] = Field(default=(), max_length=64)
    fpga: Fpga | None = None
    dla: Annotated[int, Field(ge=0, le=16)] = 0
    reach: Reach = Reach()
    measurer: ShortName | None = None
    sources: tuple[Citation, ...] = Field(default=(), max_length=32)
    notes: tuple[Text, ...] = Field(default=(), max_length=20)

    @model_validator(mode="after")
    def _refers_to_what_is_there(self) -> Device:
        """Refuse a source of a field that there is none of, and a runtime's precision that the device lacks."""
        fields = [str(field.validation_alias or name) for name, field in type(self).model_fields.items()]
        for fact in (fact for source in self.sources for fact in source.facts):
            if fact not in fields:
                raise ValueError(str(unknown_name("field in the facts of a source:", fact, fields)))
        for runtime in self.runtimes:
            if lacking := [each for each in runtime.precisions if each not in self.precisions]:
                raise ValueError(
                    str(unknown_name(f"precision of runtime {runtime.name}:", lacking[0], self.precisions))
                )
        return self

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

    def peaks_of(self, unit: str) -> dict[str, float]:
        """The highest dense peak of a unit in each precision, in operations per second."""
        dense = [peak for peak in self.peaks if peak.unit == unit and not peak.sparse]
        return {peak.precision: peak.ops_per_s for peak in sorted(dense, key=lambda peak: peak.ops_per_s)}

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
        return self.model_dump(mode="json", by_alias=True, include={*DECIDING})


DECIDING = ("schema_", "name", "title", "kind", "precisions", "arithmetic", "runtimes", "measurer")
"""Fields that decide how engines are built for a device."""


def own_precisions(precisions: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """The `precisions` that this machine computes in: BF16 only where its processor has instructions for it."""
    bf16 = not BF16_FLAGS.isdisjoint(environment()["cpu"]["flags"])
    return tuple(precision for precision in precisions if precision != "bf16" or bf16)
