"""TensorRT on Jetson boards: graphs and settings are written here, engines are built on the board.

An engine opens only by the TensorRT, and on the GPU, that it was built by and for, and TensorRT itself is part of
JetPack: so what travels are ONNX graphs that the board's version takes, held against its rules, and how to build them.
INT8 is symmetric, with both inputs of a sum rounded, so that a residual block stays in eight bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemtl.devices import Device
from edgemtl.errors import UserError
from edgemtl.files.disk import write_atomic
from edgemtl.jetpack import JETPACKS, find_jetpack
from edgemtl.models.quantization import QuantScheme, Ranges
from edgemtl.runtime import EngineSpec
from edgemtl.targets.common import check_build, flags_of, make_spec, write_spec
from edgemtl.targets.onnx.dispatch import DispatchPolicy
from edgemtl.targets.onnx.emit import emit_graph
from edgemtl.targets.onnx.float16 import to_half
from edgemtl.targets.onnx.magnitude import wide_nodes
from edgemtl.targets.onnx.partition import with_conditions
from edgemtl.targets.onnx.quantize import quantize
from edgemtl.targets.target import ExportTarget
from edgemtl.targets.tensorrt.generations import TENSORRT_VERSIONS, generation_of
from edgemtl.targets.tensorrt.lint import check_graph
from edgemtl.targets.tensorrt.lowering import lower_normalisations
from edgemtl.targets.tensorrt.settings import settings_for
from edgemtl.traits import TargetTraits

if TYPE_CHECKING:
    import onnx

    from edgemtl.models import TaskNet
    from edgemtl.models.graph import Graph

__all__ = ["TensorRtTarget", "for_jetpack"]

_FILES = {"model": "model.onnx", "typed": "model-fp16.onnx"}
_BUCKETS = DispatchPolicy("buckets", capacity=1.5)
_TRAITS = TargetTraits(
    name="tensorrt",
    title="TensorRT (NVIDIA Jetson)",
    block_precisions=("float", "int8"),
    engine_precisions=("fp32", "fp16"),
    channel_multiple=8,
    runtime="tensorrt",
    extra="",
    measurer="none",
    arithmetic="gpu",
)


@dataclass(frozen=True)
class TensorRtTarget:
    """Writes `model.onnx` (types FP32, opset 17) and, for FP16 from TensorRT 10 on, `model-fp16.onnx`.

    With `jetpack` there is one of them, for the TensorRT of that release alone; without it graphs are for 8.5 to 11.4.
    Unwanted tasks stand inside `If` on the boolean inputs `want_TASK`; experts have buckets, since no shape may depend
    on data. Raises `UserError` for a release that is unknown, or that does not run on the device.
    """

    device: Device
    jetpack: str | None = None
    dispatch: DispatchPolicy = _BUCKETS

    def __post_init__(self) -> None:
        if self.jetpack is not None:
            _check_board(self.device, self.jetpack)

    @property
    def traits(self) -> TargetTraits:
        """The same on every board, but for what they say of it."""
        board = "NVIDIA Jetson boards" if self.device.is_host else self.device.title
        named = f"{board} with JetPack {self.jetpack}" if self.jetpack else board
        return replace(_TRAITS.on(self.device), hardware=named)

    @property
    def scheme(self) -> QuantScheme:
        """The GPU's products are exact, whatever the CPU."""
        return QuantScheme("int8", symmetric=True, quantized_ops=("Add",))

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions of TensorRT that graphs are for."""
        return TENSORRT_VERSIONS if self.jetpack is None else (find_jetpack(self.jetpack).tensorrt,)

    def build(self, net: TaskNet, precision: Mapping[str, str], ranges: Ranges | None, folder: Path) -> list[Path]:
        """Write graphs and settings; `UnsupportedError` names the node and rule where a version refuses a graph."""
        graph, ranges = check_build(net, precision, ranges, self.traits)

        def conditional(model: onnx.ModelProto) -> onnx.ModelProto:
            return with_conditions(model, graph.outputs, static=True)

        files, options = self._write(graph, precision, ranges, folder, conditional)
        return write_spec(folder, self, graph, files, precision, **options, flags=flags_of(graph))

    def build_plain(
        self,
        net: TaskNet,
        precision: Mapping[str, str],
        ranges: Ranges | None,
        folder: Path,
        finish: Callable[[onnx.ModelProto], onnx.ModelProto],
    ) -> EngineSpec:
        """Write graphs without conditions; see `edgemtl.targets.PlainTarget`."""
        graph, ranges = check_build(net, precision, ranges, self.traits)
        files, options = self._write(graph, precision, ranges, folder, finish)
        return make_spec(self, graph, files, precision, **options)

    def _write(
        self,
        graph: Graph,
        precision: Mapping[str, str],
        ranges: Ranges,
        folder: Path,
        finish: Callable[[onnx.ModelProto], onnx.ModelProto],
    ) -> tuple[dict[str, str], dict[str, Any]]:
        """Write the graphs that `versions` need, once all of them pass; the engine's files and options."""
        model = quantize(emit_graph(graph, self.dispatch), precision, ranges, self.scheme)
        lower_normalisations(model)
        half = precision.get("engine") == "fp16"
        wide = wide_nodes(model, ranges) if half else frozenset()
        graphs = {typed: "typed" if half and typed else "model" for typed in (False, True)}
        models: dict[str, onnx.ModelProto] = {}
        for version in self.versions:
            key = graphs[generation_of(version).strongly_typed]
            if key not in models:
                models[key] = finish(to_half(model, wide) if key == "typed" else model)
            check_graph(models[key], [version])
        for key, each in models.items():
            write_atomic(folder / _FILES[key], each.SerializeToString(deterministic=True))
        settings = settings_for(self.versions, graphs, precision, sorted(wide))
        options = {
            "engine": precision.get("engine", "fp32"),
            "jetpack": self.jetpack,
            "builds": [each.as_json(_FILES) for each in settings],
        }
        return {key: _FILES[key] for key in models}, options


def for_jetpack(targets: Sequence[ExportTarget], jetpack: str) -> list[ExportTarget]:
    """The targets, TensorRT's for one release of JetPack.

    Raises `UserError` for a release that is unknown or does not run on the device, and where no target is TensorRT's.
    """
    if not any(isinstance(target, TensorRtTarget) for target in targets):
        names = " and ".join(target.traits.name for target in targets)
        raise UserError(f"JetPack {jetpack} given for {names}: it decides the graphs of the target tensorrt alone")
    return [replace(target, jetpack=jetpack) if isinstance(target, TensorRtTarget) else target for target in targets]


def _check_board(device: Device, jetpack: str) -> None:
    """Raise `UserError` for an unknown JetPack, and for one that does not run on the device's module."""
    release = find_jetpack(jetpack)
    modules = {module for each in JETPACKS.values() for module in each.modules}
    own = next((module for module in sorted(modules) if module in device.name), None)
    if own is not None and own not in release.modules:
        fitting = ", ".join(each.name for each in JETPACKS.values() if own in each.modules)
        raise UserError(f"JetPack {jetpack} does not run on device {device.name}: give one of {fitting}")
