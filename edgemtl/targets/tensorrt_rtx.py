"""TensorRT-RTX: an engine for a named generation of NVIDIA GPUs, built on a machine that has none.

The network is strongly typed: precision is that of the graph's tensors. INT8 is symmetric in activations and weights;
the rest of the engine is FP32 or FP16. Engines are built, not run, here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemtl.devices import Device
from edgemtl.errors import MissingDependencyError, UnsupportedError, unknown_name
from edgemtl.files.disk import write_atomic
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
from edgemtl.traits import TargetTraits

if TYPE_CHECKING:
    import onnx

    from edgemtl.models import TaskNet
    from edgemtl.models.graph import Graph

__all__ = ["GENERATIONS", "TensorRtRtxTarget", "build_plan"]

GENERATIONS = {"turing": ("SM75",), "ampere": ("SM80", "SM86"), "ada": ("SM89",), "blackwell": ("SM120",)}
"""Names of GPU generations, and the compute capabilities that an engine for one holds kernels of."""

_PLAN = "engine.plan"
_BUCKETS = DispatchPolicy("buckets", capacity=1.5)
_TRAITS = TargetTraits(
    name="tensorrt-rtx",
    title="TensorRT for RTX (NVIDIA GPUs)",
    block_precisions=("float", "int8"),
    engine_precisions=("fp32", "fp16"),
    channel_multiple=8,
    runtime="tensorrt-rtx",
    extra="tensorrt-rtx",
    measurer="none",
    arithmetic="gpu",
)


@dataclass(frozen=True)
class TensorRtRtxTarget:
    """Writes `engine.plan` for one `generation` of GPUs (a key of `GENERATIONS`; Ampere by default).

    Unwanted tasks stand inside `If` on the boolean inputs `want_TASK`, as for ONNX Runtime. Experts have buckets, since
    its parser takes no shape that data decides: `dispatch` says of which capacity.
    """

    device: Device
    generation: str = "ampere"
    dispatch: DispatchPolicy = _BUCKETS

    @property
    def traits(self) -> TargetTraits:
        """The same on every GPU, but for what they say of it."""
        named = f"NVIDIA GPUs of the {self.generation} generation ({', '.join(GENERATIONS[self.generation])})"
        return replace(_TRAITS.on(self.device), hardware=named)

    @property
    def scheme(self) -> QuantScheme:
        """The GPU's products are exact, whatever the CPU."""
        return QuantScheme("int8", symmetric=True)

    def __post_init__(self) -> None:
        if self.generation not in GENERATIONS:
            raise unknown_name("GPU generation", self.generation, GENERATIONS)

    def build(self, net: TaskNet, precision: Mapping[str, str], ranges: Ranges | None, folder: Path) -> list[Path]:
        """Write the engine; see `edgemtl.targets.ExportTarget`."""
        graph, ranges = check_build(net, precision, ranges, self.traits)
        model = self._model(graph, precision, ranges)
        made = TaskModel(model, graph.outputs, graph.input_size, graph.block_tasks)
        return self._write_modes(made, precision, folder)

    def build_model(self, model: TaskModel, precision: Mapping[str, str], folder: Path) -> list[Path]:
        """Write the engine; see `edgemtl.targets.ModelTarget`. `UnsupportedError` for FP16, of unknown limits."""
        if precision.get("engine") == "fp16":
            raise UnsupportedError(
                "target tensorrt-rtx has FP32 and INT8 alone for a net of one's own, since no calibration says which "
                "of its values FP16 can hold: leave fp16 out"
            )
        return self._write_modes(model, precision, folder)

    def _write_modes(self, model: TaskModel, precision: Mapping[str, str], folder: Path) -> list[Path]:
        self._write(keep_convolutions(with_conditions(model.model, model.outputs, static=True)), folder)
        options = {**self._options(precision), "flags": flags_of(model)}
        return write_spec(folder, self, model, {"plan": _PLAN}, precision, **options)

    def build_plain(
        self,
        net: TaskNet,
        precision: Mapping[str, str],
        ranges: Ranges | None,
        folder: Path,
        finish: Callable[[onnx.ModelProto], onnx.ModelProto],
    ) -> EngineSpec:
        """Write `engine.plan` without conditions; see `edgemtl.targets.PlainTarget`."""
        graph, ranges = check_build(net, precision, ranges, self.traits)
        self._write(finish(self._model(graph, precision, ranges)), folder)
        return make_spec(self, graph, {"plan": _PLAN}, precision, **self._options(precision))

    def _model(self, graph: Graph, precision: Mapping[str, str], ranges: Ranges) -> onnx.ModelProto:
        model = quantize(emit_graph(graph, self.dispatch), precision, ranges, self.scheme)
        return to_half(model, wide_nodes(model, ranges)) if precision.get("engine") == "fp16" else model

    def _options(self, precision: Mapping[str, str]) -> dict[str, str]:
        return {"engine": precision.get("engine", "fp32"), "generation": self.generation}

    def _write(self, model: onnx.ModelProto, folder: Path) -> None:
        write_atomic(folder / _PLAN, build_plan(model.SerializeToString(), GENERATIONS[self.generation]))


def build_plan(model: bytes, capabilities: tuple[str, ...]) -> bytes:
    """The engine of a serialized ONNX model for GPUs of these compute capabilities ("SM86"), strongly typed.

    Raises `UnsupportedError` with the node that the parser refuses or the builder's reason, `MissingDependencyError`
    without the package.
    """
    try:
        import tensorrt_rtx as trt
    except ImportError as error:
        raise MissingDependencyError("tensorrt-rtx", "tensorrt-rtx", "building for the target tensorrt-rtx") from error
    logger = _logger()
    logger.errors.clear()
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        raise UnsupportedError(_refusal(trt.__version__, parser))
    config = builder.create_builder_config()
    config.num_compute_capabilities = len(capabilities)
    for index, name in enumerate(capabilities):
        config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        reason = logger.errors[0] if logger.errors else "it gave no reason"
        raise UnsupportedError(f"target tensorrt-rtx {trt.__version__} cannot build the engine: {reason}")
    return bytes(plan)


def _refusal(version: str, parser: Any) -> str:
    error = parser.get_error(0)
    node = f"{error.node_operator()} at {error.node_name()}" if error.node_name() else "the model"
    return f"target tensorrt-rtx {version} refuses {node}: {error.desc().strip().splitlines()[0]}"


@cache
def _logger() -> Any:
    """The process's one logger (TensorRT ignores a second): keeps errors, prints nothing."""
    import tensorrt_rtx as trt

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message.strip().splitlines()[0])

    return Logger()
