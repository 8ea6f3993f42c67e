"""What an exporter declares about its runtime on a device, and how exporters are found by name.

Exporters live in `edgemtl.export`; the search must measure exported engines without importing that folder, so both meet
here: a target is found by name, among the built-in ones or through the entry-point group `edgemtl.targets`. It always
answers for a device, since what a runtime honours, and how INT8 is written for it, differ from processor to processor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from edgemtl.arithmetic import Arithmetic
from edgemtl.devices import HOST, Device, load_device
from edgemtl.errors import UserError, unknown_name
from edgemtl.profiling import Measurer, find_measurer
from edgemtl.traits import TargetTraits

if TYPE_CHECKING:
    import onnx

    from edgemtl.models import TaskNet
    from edgemtl.models.quantization import QuantScheme, Ranges
    from edgemtl.runtime import EngineSpec
    from edgemtl.targets.onnx.tokens import DispatchPolicy

__all__ = [
    "ExportTarget",
    "PlainTarget",
    "arithmetic_of",
    "find_target",
    "is_runnable",
    "measurer_of",
    "needs_of",
    "target_names",
]

_BUILT_IN = {
    "onnxruntime": "edgemtl.targets.onnxruntime:OnnxRuntimeTarget",
    "openvino": "edgemtl.targets.openvino:OpenVinoTarget",
    "streaming": "edgemtl.targets.streaming:StreamingTarget",
    "tensorrt-rtx": "edgemtl.targets.tensorrt_rtx:TensorRtRtxTarget",
}
_GROUP = "edgemtl.targets"


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
        """What engines are made for."""
        ...

    @property
    def traits(self) -> TargetTraits:
        """What the runtime honours on the device."""
        ...

    @property
    def scheme(self) -> QuantScheme:
        """How INT8 is written for the runtime on the device."""
        ...

    @property
    def dispatch(self) -> DispatchPolicy:
        """How experts get their tokens, asked for only where a net has any."""
        ...

    def build(self, net: TaskNet, precision: Mapping[str, str], ranges: Ranges | None, folder: Path) -> list[Path]:
        """Write the engine files of `net` into `folder`."""
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


def target_names() -> list[str]:
    """Names of every export target, built in and plugged in."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=_GROUP))})


def find_target(name: str, device: Device | None = None) -> ExportTarget:
    """The exporter called `name` for `device` (None: this machine).

    Raises `UserError` with the nearest names, also of a board's own runtimes where it lacks this one. A machine may
    build for what it does not run itself, so the host need not list a runtime.

    >>> find_target("openvino").traits.engine_precisions
    ('fp32', 'bf16')
    """
    device = device or load_device(HOST)
    target = _built_in(name, device) if name in _BUILT_IN else _plugged(name, device)
    if device.kind != "host":
        device.runtime(target.traits.runtime)
    return target


def _built_in(name: str, device: Device) -> ExportTarget:
    module, _, attribute = _BUILT_IN[name].partition(":")
    return cast("ExportTarget", getattr(import_module(module), attribute)(device))


def _plugged(name: str, device: Device) -> ExportTarget:
    """What another package's entry point, a function of the device, answers."""
    plugged = {point.name: point for point in entry_points(group=_GROUP)}
    if name not in plugged:
        raise unknown_name("target", name, target_names())
    try:
        return cast("ExportTarget", plugged[name].load()(device))
    except UserError:
        raise
    except Exception as error:  # another package's code may raise anything
        raise UserError(
            f"target {name!r}, which {plugged[name].value} brings, cannot be loaded ({error}): mend or uninstall "
            "that package"
        ) from error


def needs_of(target: ExportTarget, precision: Mapping[str, str]) -> tuple[str, ...]:
    """What a processor must have for an engine of this precision to be right on it: only INT8 needs anything."""
    return target.scheme.needs if "int8" in precision.values() else ()


def arithmetic_of(target: ExportTarget) -> Arithmetic:
    """What a target's engines multiply with: its own arithmetic, else that of its runtime on the device."""
    return target.traits.arithmetic or target.device.arithmetic_of(target.traits.runtime)


def measurer_of(target: ExportTarget) -> Measurer:
    """How latencies and outputs of a target's engines on its device come about."""
    return find_measurer(target.device, target.traits.name, target.traits.measurer)


def is_runnable(target: ExportTarget, precision: Mapping[str, str]) -> bool:
    """Whether an engine of this precision can be run from here, and computes there what it does on its device."""
    return measurer_of(target).runs(precision, needs_of(target, precision))
