"""The contract of exporters: they declare what their runtime honours on a device, and write engines for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from edgemtl.arithmetic import Arithmetic
from edgemtl.devices import Device
from edgemtl.profiling import Measurer, find_measurer
from edgemtl.traits import TargetTraits

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray
    from torch import nn

    from edgemtl.models import TaskNet
    from edgemtl.models.quantization import QuantScheme, Ranges
    from edgemtl.runtime import EngineSpec, Outputs
    from edgemtl.targets.onnx.dispatch import DispatchPolicy
    from edgemtl.targets.onnx.task_model import TaskModel

__all__ = [
    "EmulatingTarget",
    "ExportTarget",
    "ModelTarget",
    "PlainTarget",
    "SimulatingTarget",
    "arithmetic_of",
    "emulated",
    "is_runnable",
    "measurer_of",
    "needs_of",
]


class ExportTarget(Protocol):
    """An exporter for one runtime on one device. Stateless: one object serves any number of exports, from any thread.

    `traits` and `scheme` (how INT8 is written) are those of `device`.

    `build` writes everything the runtime needs for every mode of `net` into `folder` and returns the files, relative
    to it; it raises `UnsupportedError` naming the node where the runtime lacks an operator. `precision` maps "engine"
    to one of `traits.engine_precisions` and each block's name to one of `traits.block_precisions`; `ranges`
    (activation ranges from calibration) are needed where any block is "int8". `dispatch` is how experts get their
    tokens; an exporter whose dispatch may drop some is a dataclass with that field, so that it can be changed.
    """

    @property
    def device(self) -> Device:
        """The device that engines are made for."""
        ...

    @property
    def traits(self) -> TargetTraits:
        """Capabilities of the runtime on the device."""
        ...

    @property
    def scheme(self) -> QuantScheme:
        """How INT8 is written for the runtime on the device."""
        ...

    @property
    def dispatch(self) -> DispatchPolicy:
        """How experts get their tokens; used only for nets with experts."""
        ...

    def build(self, net: TaskNet, precision: Mapping[str, str], ranges: Ranges | None, folder: Path) -> list[Path]:
        """Write the engine files of `net` into `folder`."""
        ...


@runtime_checkable
class SimulatingTarget(Protocol):
    """An exporter whose engines no processor runs, but whose own simulation computes what they will, to the bit."""

    def simulation(
        self, net: TaskNet, folder: Path
    ) -> AbstractContextManager[Callable[[NDArray[np.float32], Sequence[str]], Outputs]]:
        """Outputs of wanted tasks for an image (1, 3, H, W), normalised, by the engine of `net` just built in `folder`.

        What an engine leaves to the processor is computed by the net. It may execute what the folder holds: never give
        it one from elsewhere.
        """
        ...


@runtime_checkable
class EmulatingTarget(Protocol):
    """An exporter whose engines compute as no `QuantScheme` says: it brings their arithmetic in torch."""

    def emulation(self, net: nn.Module, precision: Mapping[str, str], ranges: Ranges | None) -> nn.Module:
        """A module of images (N, 3, H, W), normalised, with the outputs that an engine of `net` will have.

        Raises `UnsupportedError` as `ExportTarget.build` does.
        """
        ...


@runtime_checkable
class ModelTarget(Protocol):
    """An exporter that also writes an engine from an ONNX model, which need not come from edgemtl's own nets."""

    def build_model(self, model: TaskModel, precision: Mapping[str, str], folder: Path) -> list[Path]:
        """Write the engine files of every mode of `model`, rounded already, into `folder`; see `ExportTarget.build`."""
        ...


@runtime_checkable
class PlainTarget(Protocol):
    """An exporter that can also write a net as one file that its runtime opens alone: what `--layout plain` needs."""

    def build_plain(
        self,
        net: TaskNet,
        precision: Mapping[str, str],
        ranges: Ranges | None,
        folder: Path,
        finish: Callable[[onnx.ModelProto], onnx.ModelProto],
    ) -> EngineSpec:
        """Write `net` into `folder`, every task an output of every call; returns what an `engine.json` would say.

        `finish` is given the ONNX model, once the runtime's own changes are made, and gives the one to write.
        """
        ...


def emulated(target: ExportTarget, net: nn.Module, precision: Mapping[str, str], ranges: Ranges | None) -> nn.Module:
    """The module that computes what a target's engine of `net` will: by its own arithmetic, else by its scheme."""
    from edgemtl.models.quantization import simulate

    if isinstance(target, EmulatingTarget):
        return target.emulation(net, precision, ranges)
    return simulate(net, precision, ranges, target.scheme)


def needs_of(target: ExportTarget, precision: Mapping[str, str]) -> tuple[str, ...]:
    """Instructions that an engine of this precision needs to be correct; only INT8 needs any."""
    return target.scheme.needs if "int8" in precision.values() else ()


def arithmetic_of(target: ExportTarget) -> Arithmetic:
    """Arithmetic of a target's engines: its own, else that of its runtime on the device."""
    return target.traits.arithmetic or target.device.arithmetic_of(target.traits.runtime)


def measurer_of(target: ExportTarget) -> Measurer:
    """How latencies and outputs of a target's engines on its device come about."""
    return find_measurer(target.device, target.traits.name, target.traits.measurer)


def is_runnable(target: ExportTarget, precision: Mapping[str, str]) -> bool:
    """Whether an engine of this precision can be run from here, and computes there what it does on its device."""
    return measurer_of(target).runs(precision, needs_of(target, precision))
