"""Exporters by name, built in or plugged in through the entry-point group `edgemtl.targets`.

An entry is a function of a `Device`: what a runtime honours, and how INT8 is written for it, differ from processor to
processor.
"""

from __future__ import annotations

from collections.abc import Callable

from edgemtl.devices import HOST, Device, load_device
from edgemtl.plugins import Registry
from edgemtl.targets.hls.target import HlsTarget
from edgemtl.targets.onnxruntime import OnnxRuntimeTarget
from edgemtl.targets.openvino import OpenVinoTarget
from edgemtl.targets.streaming import StreamingTarget
from edgemtl.targets.target import ExportTarget
from edgemtl.targets.tensorrt.target import TensorRtTarget
from edgemtl.targets.tensorrt_rtx import TensorRtRtxTarget

__all__ = ["find_target", "target_names", "target_of"]

_TARGETS: Registry[Callable[[Device], ExportTarget]] = Registry(
    "target",
    "edgemtl.targets",
    {
        "hls": lambda: HlsTarget,
        "onnxruntime": lambda: OnnxRuntimeTarget,
        "openvino": lambda: OpenVinoTarget,
        "streaming": lambda: StreamingTarget,
        "tensorrt": lambda: TensorRtTarget,
        "tensorrt-rtx": lambda: TensorRtRtxTarget,
    },
    returns=ExportTarget,
)


def target_names() -> list[str]:
    """Names of every export target, built in and plugged in."""
    return _TARGETS.names()


def target_of(runtime: str) -> str | None:
    """The name of the target that writes for a runtime, which most are called like; None where there is none.

    >>> target_of("openvino"), target_of("hls4ml"), target_of("telegraph")
    ('openvino', 'hls', None)
    """
    names = target_names()
    if runtime in names:
        return runtime
    return next((name for name in names if find_target(name).traits.runtime == runtime), None)


def find_target(name: str, device: Device | None = None) -> ExportTarget:
    """The exporter called `name` for `device` (None: this machine).

    Raises `UserError` with the nearest names, also of a board's own runtimes where it lacks this one. A machine may
    build for what it does not run itself, so the host need not list a runtime.

    >>> find_target("openvino").traits.engine_precisions
    ('fp32', 'bf16')
    """
    device = device or load_device(HOST)
    target = _TARGETS.call(name, device)
    if device.kind != "host":
        device.runtime(target.traits.runtime)
    return target
