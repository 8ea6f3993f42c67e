"""ONNX Runtime on the CPU: one session, and a boolean input for each task."""

from __future__ import annotations

import ctypes
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from edgemtl.errors import MissingDependencyError, UserError, first_line
from edgemtl.runtime.session import (
    CLOSED,
    ENGINE_FILE,
    WARMUP_RUNS,
    EngineSpec,
    OperatorTime,
    Outputs,
    block_of,
    check_image,
    flag_name,
)
from edgemtl.runtime.shared import assemble
from edgemtl.tasks import check_tasks, map_outputs

if TYPE_CHECKING:
    import onnxruntime as ort
    from numpy.typing import NDArray

__all__ = ["DISABLED_OPTIMIZERS", "kernel_times", "open_session"]

DISABLED_OPTIMIZERS = ("WeightBiasQuantization",)
"""Optimizers that round the weights of a float convolution between two INT8 ones to eight bits."""


class OnnxRuntimeSession:
    """Output arrays are ONNX Runtime's own, new ones each run from its arena: the caller keeps them."""

    def __init__(self, folder: Path, spec: EngineSpec, threads: int) -> None:
        self.spec, self.tasks, self._threads = spec, spec.tasks, threads
        self._folder, self._path = folder, spec.file(folder, "model")
        self._session: ort.InferenceSession | None = self._open(None)
        self._outputs = spec.outputs
        self._wants = {value: np.array([value]) for value in (False, True)}
        self._inputs = {info.name for info in self._session.get_inputs()}
        shapes = {info.name: tuple(info.shape) for info in self._session.get_inputs()}
        given = {info.name for info in self._session.get_outputs()}
        wanted = {name for own in self._outputs.values() for name in own.values()}
        if shapes.get("image") != spec.input or not given.issuperset(wanted):
            raise UserError(f"{self._path} has other inputs or outputs than its {ENGINE_FILE} says: export again")

    def run(self, image: NDArray[np.float32], tasks: str | Sequence[str]) -> Outputs:
        """Raw outputs of `tasks`; raises `UserError` for an unknown task, a wrong image or a closed engine."""
        return self._call(self._opened(), image, tasks)

    def _opened(self) -> ort.InferenceSession:
        if self._session is None:
            raise UserError(CLOSED)
        return self._session

    def _open(self, profile: str | None) -> ort.InferenceSession:
        """A session on the engine's file, or on one that is put together for the moment from what levels share."""
        if "shared" not in self.spec.files:
            return _open(self._path, self._threads, profile)
        import tempfile

        with tempfile.NamedTemporaryFile(prefix="edgemtl-", suffix=".onnx") as file:
            file.writelines(assemble(self._folder, self.spec, "model"))
            file.flush()
            session = _open(Path(file.name), self._threads, profile, one_arena=True)
        _trim()
        return session

    def _call(self, session: ort.InferenceSession, image: NDArray[np.float32], tasks: str | Sequence[str]) -> Outputs:
        wanted = check_tasks(tasks, self.tasks)
        feeds: dict[str, NDArray[Any]] = {"image": check_image(image, self.spec.input)}
        for task in self.tasks:
            if (flag := flag_name(task)) in self._inputs:
                feeds[flag] = self._wants[task in wanted]
        outputs = {task: self._outputs[task] for task in wanted}
        names = [name for own in outputs.values() for name in own.values()]
        values = dict(zip(names, session.run(names, feeds)))
        return map_outputs(values.__getitem__, outputs)

    def operator_times(self, image: NDArray[np.float32], tasks: str | Sequence[str], runs: int) -> list[OperatorTime]:
        """Mean time of each operator, from ONNX Runtime's profiler in a second session that is closed afterwards."""
        import tempfile

        self._opened()
        with tempfile.TemporaryDirectory() as scratch:
            session = self._open(str(Path(scratch) / "profile"))
            for _ in range(WARMUP_RUNS + runs):
                self._call(session, image, tasks)
            times = kernel_times(session, runs, warmup=WARMUP_RUNS)
        return [OperatorTime(name, kind, block_of(name), ms) for (name, kind), ms in times.items()]

    def close(self) -> None:
        """Free the session."""
        self._session = None


def open_session(
    folder: Path, spec: EngineSpec, threads: int, modes: Sequence[Sequence[str]] | None = None
) -> OnnxRuntimeSession:
    """Open an engine that the target `onnxruntime` wrote; every subset is ready, whatever `modes` says."""
    return OnnxRuntimeSession(folder, spec, threads)


@lru_cache(maxsize=None)
def _make_arena() -> None:
    """Register one arena for the whole process: levels run one at a time, so their activations share its memory."""
    import onnxruntime as ort

    info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(info, None)


def _trim() -> None:
    """Hand back to the system what opening an engine took and freed, where the C library can (glibc)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _open(path: Path, threads: int, profile: str | None, one_arena: bool = False) -> ort.InferenceSession:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingDependencyError("onnxruntime", "all", "an engine of the target onnxruntime") from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if one_arena:
        _make_arena()
        options.enable_mem_pattern = False  # a plan for each level would take one block for each out of the arena
        options.add_session_config_entry("session.use_env_allocators", "1")
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    try:
        return ort.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=DISABLED_OPTIMIZERS
        )
    except Exception as error:
        raise UserError(f"ONNX Runtime {ort.__version__} cannot open {path}: {first_line(error)}") from error


def kernel_times(
    session: ort.InferenceSession, runs: int, producers: Mapping[str, str] = MappingProxyType({}), warmup: int = 0
) -> dict[tuple[str, str], float]:
    """Mean ms a run of each kernel, by node and operator, from the profile of a session, which ends.

    The session was run `warmup` times before, which do not count. An operator that runs others is left out: they count
    themselves. `producers` names the node that makes a tensor, since ONNX Runtime calls a node whose layout it changed
    after its output.
    """
    spent: dict[tuple[str, str], list[float]] = {}
    for event in json.loads(Path(session.end_profiling()).read_text(encoding="utf-8")):
        label, kind = str(event.get("name", "")), str(event.get("args", {}).get("op_name", ""))
        if label.endswith("_kernel_time") and kind and kind not in ("If", "Loop", "Scan"):
            label = label[: -len("_kernel_time")]
            key = producers.get(re.sub("_nchwc$", "", label), label), kind
            spent.setdefault(key, []).append(float(event.get("dur", 0)) / 1000)
    return {key: sum(times[len(times) * warmup // (warmup + runs) :]) / runs for key, times in spent.items()}
