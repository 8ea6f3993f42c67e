"""What an exporter declares about its runtime, and how exporters are found by name.

Exporters live in `edgemtl.export`; the search must measure exported engines without importing that folder, so both meet
here: a target is found by name, among the built-in ones or through the entry-point group `edgemtl.targets`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from edgemtl.errors import UserError, unknown_name

if TYPE_CHECKING:
    import onnx

    from edgemtl.export._tokens import Dispatch
    from edgemtl.models import MultiTaskNet
    from edgemtl.models.quantization import QuantScheme, Ranges
    from edgemtl.runtime import EngineSpec

__all__ = ["INT8_CHANNEL_BYTES", "ExportTarget", "PlainTarget", "TargetTraits", "find_target", "target_names"]

_BUILT_IN = {
    "onnxruntime": "edgemtl.export.targets:ONNXRUNTIME",
    "openvino": "edgemtl.export.targets:OPENVINO",
    "streaming": "edgemtl.export.targets:STREAMING",
    "tensorrt-rtx": "edgemtl.export.targets:TENSORRT_RTX",
}
_GROUP = "edgemtl.targets"
INT8_CHANNEL_BYTES = 9
"""A float scale, an eight-bit zero point and a float bias: what an output channel of INT8 weights costs at least."""


@dataclass(frozen=True)
class TargetTraits:
    """What a runtime honours; the search offers nothing else.

    `block_precisions` may be chosen block by block ("float", "int8"); `engine_precisions` hold for the rest of the
    whole engine ("fp32", "bf16"). Widths are multiples of `channel_multiple`. `runtime` names the backend of
    `edgemtl.runtime` that opens its engines, `extra` the optional dependency that installs it (empty: none is needed).
    `executes` tells whether engines run on this host, so that a search can measure them. `int8_channel_bytes` are
    stored for each output channel beside its INT8 weights (`QuantScheme.channel_bytes` counts them).
    """

    name: str
    title: str
    block_precisions: tuple[str, ...]
    engine_precisions: tuple[str, ...]
    channel_multiple: int
    runtime: str
    extra: str
    executes: bool = True
    int8_channel_bytes: int = INT8_CHANNEL_BYTES


class ExportTarget(Protocol):
    """An exporter for one runtime. Stateless: one object serves any number of exports, from any thread.

    `build` writes everything the runtime needs for every mode of `net` into `folder` and returns the files, relative
    to it; it raises `UnsupportedError` naming the node where the runtime lacks an operator. `precision` maps "engine"
    to one of `traits.engine_precisions` and each block's name to one of `traits.block_precisions`; `ranges`
    (activation ranges from calibration) are needed where any block is "int8". `dispatch` is how experts get their
    tokens; an exporter whose dispatch may drop some is a dataclass with that field, so that it can be changed.
    """

    traits: TargetTraits
    scheme: QuantScheme

    @property
    def dispatch(self) -> Dispatch:
        """How experts get their tokens, asked for only where a net has any."""
        ...

    def build(self, net: MultiTaskNet, precision: Mapping[str, str], ranges: Ranges | None, folder: Path) -> list[Path]:
        """Write the engine files of `net` into `folder`."""
        ...


@runtime_checkable
class PlainTarget(Protocol):
    """An exporter that can also write a net as one file that its runtime opens alone: what `--layout plain` needs."""

    def build_plain(
        self,
        net: MultiTaskNet,
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


def find_target(name: str) -> ExportTarget:
    """The exporter called `name`; raises `UserError` with the nearest names."""
    found: Any
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        found = getattr(import_module(module), attribute)
    else:
        plugged = {point.name: point for point in entry_points(group=_GROUP)}
        if name not in plugged:
            raise unknown_name("target", name, target_names())
        try:
            found = plugged[name].load()
        except Exception as error:  # another package's code may raise anything
            raise UserError(
                f"target {name!r}, which {plugged[name].value} brings, cannot be loaded ({error}): mend or uninstall "
                "that package"
            ) from error
    return cast("ExportTarget", found)
