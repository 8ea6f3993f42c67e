"""The runtimes that the agent opens engines with: the package's own backends, each imported when it is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Sequence

from edgemtl.errors import UnsupportedError
from edgemtl.runtime.session import EngineSpec

__all__ = ["open_engine"]


def open_engine(folder: Path, threads: int, modes: Sequence[Sequence[str]] | None, level: int) -> Any:
    """The engine in a folder, as `edgemtl.runtime.open_engine` opens it; raises `UserError` as that does."""
    spec = EngineSpec.read(folder).at(level)
    if spec.runtime == "onnxruntime":
        from edgemtl.runtime.backends.onnxruntime import open_session as open_onnxruntime

        return open_onnxruntime(folder, spec, threads, modes)
    if spec.runtime == "openvino":
        from edgemtl.runtime.backends.openvino import open_session as open_openvino

        return open_openvino(folder, spec, threads, modes)
    if spec.runtime == "tensorrt":
        from edgemtl.runtime.tensorrt.session import open_session as open_tensorrt

        return open_tensorrt(folder, spec, threads, modes)
    raise UnsupportedError(f"the agent opens engines of onnxruntime, openvino and tensorrt, not of {spec.runtime}")
