"""Builds of engines by TensorRT's Python bindings, on the board: one way for every version from 8.5 to 11.

What differs between versions stands in the settings that the exporter wrote, as names of flags. Nothing here asks for
what one of them lacks: flags are looked up by name, and 8.5 has every call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgemtl.errors import UnsupportedError

__all__ = ["build", "choose_settings", "quiet_logger", "workspace_bytes"]

_MOST_WORKSPACE = 1 << 30
_LEAST_WORKSPACE = 16 << 20
_REMEDY = "export for the board's own JetPack with edgemtl export RUN --target tensorrt --jetpack RELEASE"


def choose_settings(builds: Sequence[Mapping[str, Any]], version: str) -> dict[str, Any]:
    """The last settings that are not newer than this TensorRT.

    Raises `UnsupportedError` where all are, and where those are for older versions alone.
    """
    own = _numbers(version)
    fitting = [each for each in builds if _numbers(str(each["since"])) <= own]
    if not fitting:
        oldest = str(builds[0]["since"]) if builds else "none"
        raise UnsupportedError(
            f"this board has TensorRT {version}, the engine's graphs need {oldest} or newer: {_REMEDY}"
        )
    before = fitting[-1]["before"]
    if before is not None and own >= _numbers(before):
        raise UnsupportedError(
            f"this board has TensorRT {version}, the engine's graphs are for versions before {before}: {_REMEDY}"
        )
    return dict(fitting[-1])


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def workspace_bytes(available: int) -> int:
    """Scratch memory that a build may take: a quarter of what is free, which the board's other programs share."""
    return min(max(available // 4, _LEAST_WORKSPACE), _MOST_WORKSPACE)


def quiet_logger(trt: Any) -> Any:
    """A logger that keeps errors and prints nothing; TensorRT uses the first one of a process."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message.strip().splitlines()[0])

    return Logger()


def build(
    trt: Any, logger: Any, model: bytes, settings: Mapping[str, Any], workspace: int, timings: bytes
) -> tuple[bytes, bytes]:
    """The plan of an ONNX model, and the timings of kernels for the next build.

    `timings` are those of a build before (empty: there is none). Raises `UnsupportedError` with the parser's or the
    builder's reason.
    """
    builder = trt.Builder(logger)
    flags = 0
    for name in settings["network_flags"]:
        flags |= 1 << int(getattr(trt.NetworkDefinitionCreationFlag, name))
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        raise UnsupportedError(f"TensorRT {trt.__version__} refuses {_refusal(parser)}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    for name in settings["builder_flags"]:
        config.set_flag(getattr(trt.BuilderFlag, name))
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # else its inspector tells names of layers alone
    _hold_to_fp32(trt, network, set(settings["fp32_nodes"]))
    if settings["dla"]:
        _place_on_dla(trt, builder, config)
        _set_magnitudes(network, settings["magnitudes"])
    cache = config.create_timing_cache(timings)
    config.set_timing_cache(cache, False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        reason = logger.errors[-1] if logger.errors else "it gave no reason"
        raise UnsupportedError(f"TensorRT {trt.__version__} cannot build the engine: {reason}")
    return bytes(plan), bytes(config.get_timing_cache().serialize())


def _refusal(parser: Any) -> str:
    """The first error of a parser: its node where this version names it, and why."""
    error = parser.get_error(0)
    named = hasattr(error, "node_name") and error.node_name()
    node = f"{error.node_operator()} at {error.node_name()}" if named else f"node {error.node()}"
    return f"{node}: {error.desc().strip().splitlines()[0]}"


def _hold_to_fp32(trt: Any, network: Any, names: Any) -> None:
    """Layers that compute floats and belong to these nodes; on a strongly typed network there are no such names."""
    for index in range(network.num_layers if names else 0):
        layer = network.get_layer(index)
        if layer.name in names and layer.get_output(0).dtype in (trt.float32, trt.float16):
            layer.precision = trt.float32
            layer.set_output_type(0, trt.float32)


def _place_on_dla(trt: Any, builder: Any, config: Any) -> None:
    """Make the DLA what layers run on unless it refuses them; raises `UnsupportedError` on a board that has none."""
    if builder.num_DLA_cores == 0:
        raise UnsupportedError(
            f"TensorRT {trt.__version__} finds no DLA on this board: export without --dla, or for a board that has one"
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = 0


def _set_magnitudes(network: Any, magnitudes: Mapping[str, float]) -> None:
    """Give tensors the range that eight bits stand for, from minus to plus their largest magnitude."""
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        tensors += [layer.get_output(number) for number in range(layer.num_outputs)]
    for tensor in tensors:
        if tensor.name in magnitudes:
            tensor.set_dynamic_range(-magnitudes[tensor.name], magnitudes[tensor.name])
