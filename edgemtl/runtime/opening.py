"""Find the backend that an engine folder names, and open it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edgemtl.arithmetic import check_needs
from edgemtl.errors import UserError
from edgemtl.plugins import Registry
from edgemtl.runtime.backends import hls4ml, onnxruntime, openvino, tensorrt_rtx
from edgemtl.runtime.session import EngineSpec, Session
from edgemtl.runtime.streaming import session as streaming
from edgemtl.runtime.tensorrt import session as tensorrt

__all__ = ["open_engine", "runtime_names"]

Modes = Sequence[Sequence[str]]
Opener = Callable[[Path, EngineSpec, int, Modes | None], Session]


_RUNTIMES: Registry[Opener] = Registry(
    "runtime",
    "edgemtl.runtimes",
    {
        "hls4ml": lambda: hls4ml.open_session,
        "onnxruntime": lambda: onnxruntime.open_session,
        "openvino": lambda: openvino.open_session,
        "streaming": lambda: streaming.open_session,
        "tensorrt": lambda: tensorrt.open_session,
        "tensorrt-rtx": lambda: tensorrt_rtx.open_session,
    },
    returns=Session,
)


def runtime_names() -> list[str]:
    """Names of every backend, built in and plugged in through the entry-point group `edgemtl.runtimes`."""
    return _RUNTIMES.names()


def open_engine(folder: Path, threads: int = 0, modes: str | Modes | None = None, level: int = 0) -> Session:
    """Open the engine in `folder` (the one that holds `engine.json`) with that many CPU threads (0: its choice).

    Every subset of its tasks is ready afterwards. Who needs a few only, as a search that measures does, names them in
    `modes` (a string is a task, alone) and waits less where a runtime compiles each; another subset is then refused.
    `level` is the number of one of several designs in the folder. Raises `UserError` for a folder that is no engine or
    lacks that level, and where this processor lacks what the engine needs to be right on it, `MissingDependencyError`
    where the runtime is not installed and `UnsupportedError` where this machine cannot run it. A plugged-in backend is
    a function of folder, `EngineSpec`, threads and modes that returns a `Session`.
    """
    if threads < 0:
        raise UserError(f"{threads} threads given: give 0 (the runtime's choice) or more")
    spec = EngineSpec.read(folder).at(level)
    check_needs(f"engine {folder}", spec.needs)
    return _RUNTIMES.call(spec.runtime, folder, spec, threads, [modes] if isinstance(modes, str) else modes)
