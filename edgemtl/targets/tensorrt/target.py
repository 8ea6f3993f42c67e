"""TensorRT on Jetson boards: graphs and settings are written here, engines are built on the board.

An engine opens only by the TensorRT, and on the GPU, that it was built by and for, and TensorRT itself is part of
JetPack: so what travels are ONNX graphs that the board's version takes, held against its rules, and how to build them.
INT8 is symmetric, with both inputs of a sum rounded, so that a residual block stays in eight bits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemtl.devices import Device, device_names, load_device
from edgemtl.errors import UnsupportedError, UserError
from edgemtl.files.disk import write_atomic, write_json
from edgemtl.jetpack import JETPACKS, find_jetpack, known_jetpack, version_of
from edgemtl.models.quantization import QuantScheme, Ranges
from edgemtl.runtime import EngineSpec
from edgemtl.targets.common import check_build, flags_of, make_spec, write_spec
from edgemtl.targets.onnx.dispatch import DispatchPolicy
from edgemtl.targets.onnx.emit import emit_graph
from edgemtl.targets.onnx.float16 import to_half
from edgemtl.targets.onnx.magnitude import wide_nodes
from edgemtl.targets.onnx.partition import with_conditions
from edgemtl.targets.onnx.pointwise import keep_convolutions
from edgemtl.targets.onnx.quantize import quantize
from edgemtl.targets.onnx.task_model import TaskModel
from edgemtl.targets.target import ExportTarget
from edgemtl.targets.tensorrt.dla import DLA_SCHEME, DLA_VERSIONS, placement_of
from edgemtl.targets.tensorrt.generations import TENSORRT_VERSIONS, generation_of
from edgemtl.targets.tensorrt.lint import check_graph
from edgemtl.targets.tensorrt.lowering import lower_normalisations
from edgemtl.targets.tensorrt.settings import dla_settings_for, settings_for
from edgemtl.traits import TargetTraits

if TYPE_CHECKING:
    import onnx

    from edgemtl.models import TaskNet
    from edgemtl.models.graph import Graph

__all__ = ["TensorRtTarget", "on_board"]

_FILES = {"model": "model.onnx", "typed": "model-fp16.onnx"}
_BUILD = "build.json"
_SYSTEM = "JetPack "
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
    on data. With `dla` the graph is one in floats, with a scale for every tensor of INT8 blocks beside it, and layers
    run on the DLA where it takes them; the rest of the engine is FP16. Raises `UserError` for a release that is
    unknown or does not run on the device, and for `dla` where there is none.
    """

    device: Device
    jetpack: str | None = None
    dla: bool = False
    dispatch: DispatchPolicy = _BUCKETS

    def __post_init__(self) -> None:
        if self.jetpack is not None:
            _check_board(self.device, self.jetpack)
        if self.dla:
            _check_dla(self.device, self.jetpack)

    @property
    def traits(self) -> TargetTraits:
        """The same on every board, but for what they say of it."""
        board = "NVIDIA Jetson boards" if self.device.is_host else self.device.title
        named = f"{board} with JetPack {self.jetpack}" if self.jetpack else board
        traits = replace(_TRAITS.on(self.device), hardware=named)
        return replace(traits, engine_precisions=("fp16",), needs_ranges=True) if self.dla else traits

    @property
    def scheme(self) -> QuantScheme:
        """The GPU's products are exact, whatever the CPU."""
        return DLA_SCHEME if self.dla else QuantScheme("int8", symmetric=True, quantized_ops=("Add",))

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions of TensorRT that graphs are for."""
        if self.jetpack is None:
            return DLA_VERSIONS if self.dla else TENSORRT_VERSIONS
        return (find_jetpack(self.jetpack).tensorrt,)

    def build(self, net: TaskNet, precision: Mapping[str, str], ranges: Ranges | None, folder: Path) -> list[Path]:
        """Write graphs and settings; `UnsupportedError` names the node and rule where a version refuses a graph."""
        graph, ranges = check_build(net, precision, ranges, self.traits)

        def conditional(model: onnx.ModelProto) -> onnx.ModelProto:
            return with_conditions(model, graph.outputs, static=True)

        files, options = self._write(graph, precision, ranges, folder, conditional)
        return write_spec(folder, self, graph, files, precision, **options, flags=flags_of(graph))

    def build_model(self, model: TaskModel, precision: Mapping[str, str], folder: Path) -> list[Path]:
        """Write the graph and its settings; see `edgemtl.targets.ModelTarget`.

        `UnsupportedError` for FP16, of unknown limits, and for the DLA, and where a version refuses the graph.
        """
        if precision.get("engine") == "fp16" or self.dla:
            raise UnsupportedError(
                "target tensorrt has FP32 and INT8 on the GPU alone for a net of one's own, since no calibration says "
                f"which of its values FP16 can hold: leave {'--dla' if self.dla else 'fp16'} out"
            )
        content = copy.deepcopy(model.model)
        lower_normalisations(content)
        content = with_conditions(content, model.outputs, static=True)
        check_graph(content, self.versions)
        write_atomic(folder / _FILES["model"], content.SerializeToString(deterministic=True))
        files = {"model": _FILES["model"]}
        settings = settings_for(self.versions, dict.fromkeys((False, True), "model"), precision, ())
        options = {"engine": "fp32", "jetpack": self.jetpack, "builds": [each.as_json(files) for each in settings]}
        return write_spec(folder, self, model, files, precision, **options, flags=flags_of(model))

    def build_plain(
        self,
        net: TaskNet,
        precision: Mapping[str, str],
        ranges: Ranges | None,
        folder: Path,
        finish: Callable[[onnx.ModelProto], onnx.ModelProto],
    ) -> EngineSpec:
        """Write graphs without conditions, and how they are built; see `edgemtl.targets.PlainTarget`."""
        graph, ranges = check_build(net, precision, ranges, self.traits)
        files, options = self._write(graph, precision, ranges, folder, finish)
        write_json(folder / _BUILD, {"files": files, "blocks": dict(graph.block_tasks), **options})
        return make_spec(self, graph, {**files, "build": _BUILD}, precision, **options)

    def _write(
        self,
        graph: Graph,
        precision: Mapping[str, str],
        ranges: Ranges,
        folder: Path,
        finish: Callable[[onnx.ModelProto], onnx.ModelProto],
    ) -> tuple[dict[str, str], dict[str, Any]]:
        """Write the graphs that `versions` need, once all of them pass; the engine's files and options."""
        if self.dla:
            return self._write_for_dla(graph, precision, ranges, folder, finish)
        model = quantize(emit_graph(graph, self.dispatch), precision, ranges, self.scheme)
        lower_normalisations(model)
        half = precision.get("engine") == "fp16"
        wide = wide_nodes(model, ranges) if half else frozenset()
        graphs = {typed: "typed" if half and typed else "model" for typed in (False, True)}
        models: dict[str, onnx.ModelProto] = {}
        for version in self.versions:
            key = graphs[generation_of(version).strongly_typed]
            if key not in models:
                models[key] = keep_convolutions(finish(to_half(model, wide))) if key == "typed" else finish(model)
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

    def _write_for_dla(
        self,
        graph: Graph,
        precision: Mapping[str, str],
        ranges: Ranges,
        folder: Path,
        finish: Callable[[onnx.ModelProto], onnx.ModelProto],
    ) -> tuple[dict[str, str], dict[str, Any]]:
        """Write the graph in floats, its settings with scales, and what the DLA takes of it and what it refuses."""
        model = emit_graph(graph, self.dispatch)
        lower_normalisations(model)
        wide = sorted(wide_nodes(model, ranges))
        model = finish(model)
        check_graph(model, self.versions)
        placed = placement_of(model, precision, ranges)
        write_atomic(folder / _FILES["model"], model.SerializeToString(deterministic=True))
        files = {"model": _FILES["model"]}
        settings = dla_settings_for(self.versions, "model", placed.magnitudes, wide)
        options = {
            "engine": "fp16",
            "jetpack": self.jetpack,
            "builds": [each.as_json(files) for each in settings],
            "dla": list(placed.blocks),
            "gpu": [str(problem) for problem in placed.refused],
        }
        return files, options


def on_board(targets: Sequence[ExportTarget], jetpack: str | None = None, dla: bool = False) -> list[ExportTarget]:
    """The targets, TensorRT's for one release of JetPack (None: any), and placed on the DLA where `dla` says so.

    Raises `UserError` for a release that is unknown or does not run on the device, for a device without a DLA, and
    where one of them is given and no target is TensorRT's.
    """
    if (jetpack or dla) and not any(isinstance(target, TensorRtTarget) for target in targets):
        names, given = (
            " and ".join(target.traits.name for target in targets),
            f"JetPack {jetpack}" if jetpack else "DLA",
        )
        raise UserError(f"{given} given for {names}: it decides the graphs of the target tensorrt alone")
    return [
        replace(target, jetpack=jetpack, dla=dla) if isinstance(target, TensorRtTarget) else target
        for target in targets
    ]


def _check_dla(device: Device, jetpack: str | None) -> None:
    """Raise `UserError` for a device without a DLA, and a JetPack whose TensorRT is told no scales beside a graph."""
    if device.dla == 0:
        with_dla = ", ".join(name for name in device_names() if load_device(name).dla)
        raise UserError(f"device {device.name} has no DLA: give --device with one that has ({with_dla}), or drop --dla")
    version = None if jetpack is None else find_jetpack(jetpack).tensorrt
    if version is not None and version_of(version) >= (10, 13):
        raise UserError(
            f"JetPack {jetpack} brings TensorRT {version}, which is told no scales for the DLA: give JetPack 5.1 to "
            "6.2, or drop --dla"
        )


def _check_board(device: Device, jetpack: str) -> None:
    """Raise `UserError` for an unknown JetPack, and for one that the device's file does not name among its systems."""
    release = find_jetpack(jetpack)
    stated = [system.name.removeprefix(_SYSTEM) for system in device.systems if system.name.startswith(_SYSTEM)]
    fitting = [each.name for each in JETPACKS.values() if each in map(known_jetpack, stated)]
    if fitting and release.name not in fitting:
        raise UserError(f"JetPack {jetpack} does not run on device {device.name}: give one of {', '.join(fitting)}")
