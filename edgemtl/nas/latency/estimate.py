"""Estimated latencies of designs on a device that is not reached: its roofs, and efficiencies fitted on another.

Fits lie in `profiles/efficiencies/`, one for each class of processor and runtime, each with the environment that it was
made in and its error on designs held out.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue

from edgemtl.arithmetic import Arithmetic
from edgemtl.devices import Device
from edgemtl.environment import environment
from edgemtl.errors import UserError
from edgemtl.files.disk import read_json, write_json
from edgemtl.files.seals import check_seal, sealed
from edgemtl.files.share import find_shared
from edgemtl.nas.latency.parts import design_parts
from edgemtl.nas.latency.roofline import UNFITTED, Efficiencies, Roofs, estimate_ms, roofs_of
from edgemtl.nas.latency.table import HeldOut
from edgemtl.schema import Name, Strict, parse_document
from edgemtl.spaces import Design
from edgemtl.targets import ExportTarget, measurer_of
from edgemtl.units import Budget

__all__ = [
    "FITS",
    "Fit",
    "LatencyEstimate",
    "estimate_for",
    "estimate_latency",
    "find_fit",
    "read_fit",
    "write_fit",
]

FITS = "profiles/efficiencies"
"""The folder of fits, the user's own before the shipped one."""
SCHEMA = "edgemtl.efficiencies/1"
_WHAT, _REMEDY = "fit of efficiencies", "make it again with benchmarks/fit_estimates.py"
_RUNTIMES = ("onnxruntime", "openvino")
Share = Annotated[float, Field(gt=0, le=1e6)]
Shares = Annotated[dict[Name, Share], Field(max_length=100)]
Rate = Annotated[float, Field(gt=0, le=1e18)]


class _Efficiencies(Strict):
    """Efficiencies, as the dataclass has them."""

    compute: Shares
    memory: Shares
    launch_ms: Annotated[float, Field(ge=0, le=1e3)]
    outside: Shares


class _Roofs(Strict):
    """Rates of the machine that the fit was made on."""

    ops_per_s: Annotated[dict[Name, Rate], Field(max_length=20)]
    bytes_per_s: Rate


class _HeldOut(Strict):
    """Error on designs held out, as the dataclass has it."""

    error: Annotated[float, Field(ge=0)]
    tau: Annotated[float, Field(ge=-1, le=1)]
    designs: Annotated[int, Field(ge=1)]


class _Document(Strict):
    """The content of a file."""

    schema_: Literal["edgemtl.efficiencies/1"] = Field(alias="schema")
    arithmetic: Arithmetic
    runtime: Name
    runtime_version: Name | None
    spaces: Annotated[tuple[Name, ...], Field(max_length=20)]
    efficiencies: _Efficiencies
    roofs: _Roofs
    held_out: _HeldOut
    environment: dict[Name, JsonValue]
    sha256: str


@dataclass(frozen=True)
class Fit:
    """Efficiencies of a runtime on a class of processor, the roofs of the machine of the fit, and its error."""

    arithmetic: Arithmetic
    runtime: str
    spaces: tuple[str, ...]
    efficiencies: Efficiencies
    roofs: Roofs
    held_out: HeldOut

    @property
    def where(self) -> str:
        """The class of processor and the runtime, `avx512-vnni/onnxruntime`."""
        return f"{self.arithmetic}/{self.runtime}"


def write_fit(folder: Path, fit: Fit) -> Path:
    """Write a fit into `folder`, atomically, with the environment of now and the hash of it all; returns the file."""
    machine = environment()
    content = {
        "schema": SCHEMA,
        **asdict(fit),
        "runtime_version": machine["packages"].get(fit.runtime),
        "environment": machine,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _file_name(fit.arithmetic, fit.runtime)
    write_json(path, sealed(json.loads(json.dumps(content))))
    return path


def read_fit(path: Path) -> Fit:
    """The fit in a file; `UserError`, one line, where it is damaged, or something else."""
    content = read_json(path, _WHAT)
    document = parse_document(content, f"{_WHAT} {path}", _Document, SCHEMA, _REMEDY)
    check_seal(content, path, _WHAT)
    return Fit(
        document.arithmetic,
        document.runtime,
        document.spaces,
        Efficiencies(**dict(document.efficiencies)),
        Roofs(**dict(document.roofs)),
        HeldOut(**dict(document.held_out)),
    )


def find_fit(arithmetic: Arithmetic, runtime: str) -> Fit | None:
    """The fit for a class of processor and a runtime, or the nearest one: of that class, of that runtime, or any."""
    classes = [arithmetic, *(each for each in get_args(Arithmetic) if each != arithmetic)]
    runtimes = [runtime, *(each for each in _RUNTIMES if each != runtime)]
    for name in itertools.starmap(_file_name, itertools.product(classes, runtimes)):
        if (path := find_shared(FITS, name)) is not None:
            return read_fit(path)
    return None


def _file_name(arithmetic: str, runtime: str) -> str:
    return f"{arithmetic}.{runtime}.json"


@dataclass(frozen=True)
class LatencyEstimate:
    """Estimates latencies of designs by a runtime of a device; without a `fit` every rate is taken as reached."""

    device: Device
    runtime: str
    roofs: Roofs
    fit: Fit | None

    def predict(self, designs: Sequence[Design], scope: str = "") -> NDArray[np.float64]:
        """Latencies in ms, of all tasks under "", of a single one under its name."""
        efficiencies = self.fit.efficiencies if self.fit else UNFITTED
        return np.array([estimate_ms(design_parts(each, scope), self.roofs, efficiencies) for each in designs])

    @property
    def errors(self) -> Mapping[str, float]:
        """The fit's error on designs held out, of all tasks; empty without a fit."""
        return {"": self.fit.held_out.error} if self.fit else {}

    @property
    def fitted_on(self) -> str | None:
        """Where the error was found, if that is not the device's own processor and runtime."""
        own = f"{self.device.arithmetic_of(self.runtime)}/{self.runtime}"
        return self.fit.where if self.fit and self.fit.where != own else None

    @property
    def words(self) -> str:
        """Where an estimated latency is known from, on one line."""
        at = f"roofline of {self.device.name}/{self.runtime} by the rates that its file states"
        if self.fit is None:
            return f"{at}, all taken as reached in full since no efficiencies were fitted: its error is not known"
        held_out = self.fit.held_out
        there = f"efficiencies fitted on {self.fit.where}, error {100 * held_out.error:.1f} % on designs held out there"
        return f"{at}, {there}{', more is to be expected here' if self.fitted_on else ''}"


def estimate_latency(device: Device, runtime: str) -> LatencyEstimate:
    """The estimate of latencies on a device; `UserError` where its file states no rates that it could follow from."""
    return LatencyEstimate(device, runtime, roofs_of(device, runtime), find_fit(device.arithmetic_of(runtime), runtime))


def estimate_for(
    target: ExportTarget, budgets: Iterable[Budget], objectives: Sequence[str] = ()
) -> LatencyEstimate | None:
    """The estimate that a budget in ms or an objective needs on a target's board; None where nothing needs one.

    A board that is reached is measured, and so is this machine. Raises `UserError`, naming the budget, where the
    device's file states no rates.
    """
    asking = [f"budget {budget.text!r}" for budget in budgets if not budget.counted]
    asking += ["objective latency"] if "latency" in objectives else []
    if not asking or target.device.is_host or measurer_of(target).untimed is None:
        return None
    try:
        return estimate_latency(target.device, target.traits.runtime)
    except UserError as error:
        raise UserError(f"{asking[0]}: {error}; or give FLOPs or MB") from error
